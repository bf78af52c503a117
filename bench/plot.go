package main

import (
	"image/color"
	"math"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// picture is a plot and the file that it goes to.
type picture struct {
	*plot.Plot
	title, file   string
	width, height vg.Length
}

// colors can be told apart by people with colour blindness too (Okabe and Ito).
var colors = []color.Color{
	color.RGBA{0x00, 0x72, 0xb2, 0xff}, color.RGBA{0xe6, 0x9f, 0x00, 0xff}, color.RGBA{0x00, 0x9e, 0x73, 0xff},
	color.RGBA{0xcc, 0x79, 0xa7, 0xff}, color.RGBA{0xd5, 0x5e, 0x00, 0xff}, color.RGBA{0x56, 0xb4, 0xe9, 0xff},
}

func newPicture(file, title string) picture {
	p := plot.New()
	p.Title.Text = title
	p.Title.Padding = 8
	p.BackgroundColor = color.White
	p.Legend.Top = true
	p.Legend.Padding = 2
	return picture{Plot: p, title: title, file: file, width: 18 * vg.Centimeter, height: 11 * vg.Centimeter}
}

func (p picture) save(path string) error {
	canvas := vgsvg.New(p.width, p.height)
	const margin = 10 // labels are a bit wider than their computed width
	p.Draw(draw.Crop(draw.New(canvas), margin, -margin, margin, -margin))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// bars draws a group of horizontal bars for each result, the first on top. The bar of
// a contender is as long as value says.
func bars(file, title, axis string, results []result, by []string, value func(r result, by string) float64) []picture {
	p := newPicture(file, title)
	p.X.Label.Text = axis
	p.X.Min = 0
	p.height = vg.Length(2+float64(len(results))*float64(len(by)+1)*0.28) * vg.Centimeter
	width := vg.Centimeter * 0.24
	names := make([]string, len(results))
	for i, r := range results {
		names[len(results)-1-i] = r.name
	}
	for i, who := range by {
		values := make(plotter.Values, len(results))
		for j, r := range results {
			values[len(results)-1-j] = value(r, who)
		}
		chart, err := plotter.NewBarChart(values, width)
		if err != nil {
			continue // nothing to draw
		}
		chart.Horizontal = true
		chart.Color = colors[i%len(colors)]
		chart.LineStyle.Width = 0
		chart.Offset = width * vg.Length(float64(len(by)-1)/2-float64(i))
		p.Add(chart)
		p.Legend.Add(titles[who], chart)
	}
	p.Add(verticalGrid())
	p.NominalY(names...)
	p.Legend.Top = false
	p.Legend.Left = false
	p.X.Max *= 1.3 // room for the legend
	return []picture{p}
}

func verticalGrid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Horizontal.Color = nil
	return g
}

// lines draws a line for each contender of each series of steps. Both axes are
// logarithmic, so linear growth is a straight line.
func lines(file, title, xAxis, yAxis string, results []result) []picture {
	p := newPicture(file, title)
	p.X.Label.Text, p.Y.Label.Text = xAxis, yAxis
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Left = true
	low, high := math.Inf(1), 0.0
	for i, name := range seriesOf(results) {
		points := make(map[string]plotter.XYs)
		var order []string
		for _, r := range results {
			if r.series != name {
				continue
			}
			for _, c := range r.contenders {
				if points[c.by] == nil {
					order = append(order, c.by)
				}
				ns, _ := r.nsPerOp(c.by)
				low, high = min(low, ns), max(high, ns)
				points[c.by] = append(points[c.by], plotter.XY{X: r.x, Y: ns})
			}
		}
		for j, by := range order {
			l, dots, err := plotter.NewLinePoints(points[by])
			if err != nil {
				continue
			}
			l.Color, dots.Color, dots.Shape = colors[i%len(colors)], colors[i%len(colors)], draw.CircleGlyph{}
			dots.Radius = 2
			if j > 0 { // the floor
				l.Dashes = []vg.Length{4, 3}
				dots.Shape = draw.RingGlyph{}
				dots.Radius = 4
			}
			p.Add(l, dots)
			p.Legend.Add(name+", "+titles[by], l, dots)
		}
	}
	decade := func(of float64, round func(float64) float64) float64 { return math.Pow(10, round(math.Log10(of))) }
	p.Y.Min, p.Y.Max = decade(low, math.Floor), 10*decade(high, math.Ceil) // and room for the legend
	if len(seriesOf(results)) > 1 {
		p.Y.Max *= 10
	}
	if p.X.Min == p.X.Max { // a single step, of -only
		p.X.Max *= 10
	}
	p.Add(plotter.NewGrid())
	return []picture{p}
}

// seriesOf returns the series of the steps, in their order.
func seriesOf(results []result) []string {
	var names []string
	for _, r := range results {
		if !slices.Contains(names, r.series) {
			names = append(names, r.series)
		}
	}
	return names
}
