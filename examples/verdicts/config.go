package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
)

// config has the contents of maps and the values of variables before a program runs,
// in JSON, by the name of the map or variable.
type config map[string]json.RawMessage

// mapFlag is the flag -map NAME=FILE, which may be given many times.
type mapFlag struct{ config *config }

func (f mapFlag) String() string { return "" }

func (f mapFlag) Set(s string) error {
	name, file, ok := strings.Cut(s, "=")
	if !ok || name == "" || file == "" {
		return errors.New("want NAME=FILE")
	}
	b, err := readJSON(file)
	if err != nil {
		return err
	}
	return f.config.add(name, b)
}

// mapsFlag is the flag -maps FILE. The file has an object with the contents of each map.
type mapsFlag struct{ config *config }

func (f mapsFlag) String() string { return "" }

func (f mapsFlag) Set(file string) error {
	b, err := readJSON(file)
	if err != nil {
		return err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("%s: want an object with a member for each map", file)
	}
	for name, contents := range all {
		if err := f.config.add(name, contents); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) add(name string, contents json.RawMessage) error {
	if *c == nil {
		*c = config{}
	}
	if _, ok := (*c)[name]; ok {
		return fmt.Errorf("%s is given twice", name)
	}
	(*c)[name] = contents
	return nil
}

// readJSON reads a file of JSON. Its error names the line of a mistake.
func readJSON(file string) (json.RawMessage, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var v json.RawMessage
	err = json.Unmarshal(b, &v)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return nil, fmt.Errorf("%s:%d: %w", file, 1+bytes.Count(b[:syntax.Offset], []byte("\n")), err)
	}
	return v, err
}

// prepare sets the variables, and adds the programs that go into program arrays.
func (c config) prepare(spec *ebpf.CollectionSpec) error {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		contents := c[name]
		if v := spec.Variables[name]; v != nil && spec.Maps[name] == nil {
			if err := setVariable(v, contents); err != nil {
				return fmt.Errorf("variable %s: %w", name, err)
			}
		}
		if m := spec.Maps[name]; m != nil && m.Type == ebpf.ProgramArray {
			if err := addPrograms(spec, m, contents); err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
		}
	}
	return nil
}

func setVariable(v *ebpf.VariableSpec, contents json.RawMessage) error {
	value, err := decodeJSON(contents)
	if err != nil {
		return err
	}
	b := make([]byte, v.Size())
	if v.Type != nil {
		err = encode(b, v.Type.Type, value)
	} else {
		err = encode(b, nil, value)
	}
	if err != nil {
		return err
	}
	return v.Set(b)
}

func addPrograms(spec *ebpf.CollectionSpec, m *ebpf.MapSpec, contents json.RawMessage) error {
	list, err := entries(contents)
	if err != nil {
		return err
	}
	for _, e := range list {
		key, err := e.encodeKey(m)
		if err != nil {
			return err
		}
		name, ok := e.Value.(string)
		if !ok || spec.Programs[name] == nil {
			return fmt.Errorf("%s: its values are names of programs of the object", e)
		}
		m.Contents = append(m.Contents, ebpf.MapKV{Key: key, Value: name})
	}
	return nil
}

// check returns an error if the program does not use a name of the config.
func (c config) check(spec *ebpf.CollectionSpec, program string) error {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if spec.Maps[name] == nil && spec.Variables[name] == nil {
			used := slices.Sorted(maps.Keys(spec.Maps))
			used = append(used, slices.Sorted(maps.Keys(spec.Variables))...)
			if len(used) == 0 {
				used = []string{"none"}
			}
			return fmt.Errorf("%s uses no map or variable %s; it uses %s", program, name, strings.Join(used, ", "))
		}
	}
	return nil
}

// fill fills the maps of a loaded program.
func (c config) fill(spec *ebpf.CollectionSpec, coll *ebpf.Collection) error {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		m := spec.Maps[name]
		if m == nil || m.Type == ebpf.ProgramArray {
			continue
		}
		if err := fillMap(coll.Maps[name], m, c[name]); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	return nil
}

func fillMap(m *ebpf.Map, spec *ebpf.MapSpec, contents json.RawMessage) error {
	list, err := entries(contents)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := e.put(m, spec); err != nil {
			return err
		}
	}
	return nil
}

// entry is an entry of a map. It has no key in maps without keys.
type entry struct {
	Key   any `json:"key"`
	Value any `json:"value"`
	// Values has the value of each CPU, as bpftool dumps them.
	Values []struct {
		CPU   int `json:"cpu"`
		Value any `json:"value"`
	} `json:"values"`
}

func (e entry) String() string {
	if e.Key == nil {
		return "an entry"
	}
	return "key " + quoted(e.Key)
}

// entries parses a list of entries, as bpftool dumps them, or an object whose names are
// the keys.
func entries(contents json.RawMessage) ([]entry, error) {
	var list []entry
	if contents[0] == '[' {
		if err := unmarshal(contents, &list); err != nil {
			return nil, fmt.Errorf(`want a list of {"key": …, "value": …}: %w`, err)
		}
		return list, nil
	}
	var object map[string]any
	if err := unmarshal(contents, &object); err != nil {
		return nil, errors.New(`want a list of {"key": …, "value": …}, or an object with a member for each key`)
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		for _, k := range expand(key) {
			list = append(list, entry{Key: k, Value: object[key]})
		}
	}
	return list, nil
}

var keyRange = regexp.MustCompile(`^(\d{1,9})-(\d{1,9})$`)

// expand returns all keys of a range, such as 0-65536, or a single key.
func expand(key string) (keys []any) {
	m := keyRange.FindStringSubmatch(key)
	if m == nil {
		return []any{key}
	}
	first, _ := strconv.Atoi(m[1])
	last, _ := strconv.Atoi(m[2])
	for k := first; k <= last; k++ {
		keys = append(keys, json.Number(strconv.Itoa(k)))
	}
	return keys
}

func decodeJSON(b json.RawMessage) (v any, err error) {
	err = unmarshal(b, &v)
	return v, err
}

// unmarshal parses JSON and keeps numbers as they are written.
func unmarshal(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (e entry) put(m *ebpf.Map, spec *ebpf.MapSpec) error {
	key, err := e.encodeKey(spec)
	if err != nil {
		return err
	}
	if e.Value == nil && e.Values == nil {
		return fmt.Errorf("%s has no value", e)
	}
	value, done, err := e.encodeValue(spec)
	if err != nil {
		return fmt.Errorf("%s: %w", e, err)
	}
	defer done()
	if err := m.Put(key, value); err != nil {
		return fmt.Errorf("%s: %w (the map takes %d entries)", e, err, m.MaxEntries())
	}
	return nil
}

// encodeKey returns the key's bytes, or nil for maps without keys: queues and
// stacks.
func (e entry) encodeKey(spec *ebpf.MapSpec) (any, error) {
	if spec.KeySize == 0 {
		return nil, nil
	}
	if e.Key == nil {
		return nil, errors.New("an entry has no key")
	}
	key := make([]byte, spec.KeySize)
	if err := encode(key, spec.Key, e.Key); err != nil {
		return nil, fmt.Errorf("%s: %w", e, err)
	}
	return key, nil
}

// encodeValue returns a value as Map.Put takes it, and a function to call after Put.
func (e entry) encodeValue(spec *ebpf.MapSpec) (value any, done func(), err error) {
	switch spec.Type {
	case ebpf.ArrayOfMaps, ebpf.HashOfMaps:
		return e.encodeMap(spec.InnerMap)
	case ebpf.PerCPUArray, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.PerCPUCGroupStorage:
		value, err := e.encodeEachCPU(spec)
		return value, func() {}, err
	}
	b := make([]byte, spec.ValueSize)
	err = encode(b, spec.Value, e.Value)
	return b, func() {}, err
}

// encodeMap creates a map that is a value in a map of maps.
func (e entry) encodeMap(spec *ebpf.MapSpec) (value any, done func(), err error) {
	if spec == nil {
		return nil, nil, errors.New("the object does not tell what maps are in this map")
	}
	contents, err := json.Marshal(e.Value)
	if err != nil {
		return nil, nil, err
	}
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, nil, err
	}
	if err := fillMap(m, spec, contents); err != nil {
		m.Close()
		return nil, nil, err
	}
	return m, func() { m.Close() }, nil
}

// encodeEachCPU returns a value for each CPU. It is the same for all, or each has its
// own.
func (e entry) encodeEachCPU(spec *ebpf.MapSpec) (any, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	values := make([][]byte, cpus)
	for cpu := range values {
		values[cpu] = make([]byte, spec.ValueSize)
		if e.Values != nil {
			continue
		}
		if err := encode(values[cpu], spec.Value, e.Value); err != nil {
			return nil, err
		}
	}
	for _, v := range e.Values {
		if v.CPU < 0 || v.CPU >= cpus {
			return nil, fmt.Errorf("there is no CPU %d here", v.CPU)
		}
		if err := encode(values[v.CPU], spec.Value, v.Value); err != nil {
			return nil, err
		}
	}
	return values, nil
}
