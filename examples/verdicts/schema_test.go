package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// schemaNode has what schema.json uses of JSON Schema.
type schemaNode struct {
	Ref        string                `json:"$ref"`
	Defs       map[string]schemaNode `json:"$defs"`
	AnyOf      []schemaNode
	OneOf      []schemaNode
	Type       string
	Enum       []string
	Pattern    string
	Minimum    *float64
	Required   []string
	Properties map[string]schemaNode
	Additional *bool `json:"additionalProperties"`
	Items      *schemaNode
}

func readSchema(t *testing.T) (s schemaNode) {
	t.Helper()
	if err := json.Unmarshal([]byte(schema), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// check returns why a value is not as the schema says, or "".
func (root schemaNode) check(s schemaNode, v any) string {
	if s.Ref != "" {
		return root.check(root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")], v)
	}
	passes := func(of []schemaNode) (n int) {
		for _, one := range of {
			if root.check(one, v) == "" {
				n++
			}
		}
		return n
	}
	if s.AnyOf != nil && passes(s.AnyOf) == 0 || s.OneOf != nil && passes(s.OneOf) != 1 {
		return fmt.Sprintf("%v is none of several, or more than one", v)
	}
	switch v := v.(type) {
	case string:
		if s.Type != "string" || s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) || s.Enum != nil && !slices.Contains(s.Enum, v) {
			return fmt.Sprintf("%q is not %s %s", v, s.Type, s.Pattern)
		}
	case float64:
		if s.Type != "integer" || v != math.Trunc(v) || s.Minimum != nil && v < *s.Minimum {
			return fmt.Sprintf("%v is not %s", v, s.Type)
		}
	case bool:
		if s.Type != "boolean" {
			return fmt.Sprintf("%v is not %s", v, s.Type)
		}
	case []any:
		if s.Type != "array" {
			return fmt.Sprintf("%v is not %s", v, s.Type)
		}
		for _, element := range v {
			if why := root.check(*s.Items, element); why != "" {
				return why
			}
		}
	case map[string]any:
		return root.checkObject(s, v)
	default:
		return fmt.Sprintf("%v is of no type", v)
	}
	return ""
}

func (root schemaNode) checkObject(s schemaNode, v map[string]any) string {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return name + " is missing"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		property, ok := s.Properties[name]
		if !ok && s.Additional != nil && !*s.Additional {
			return name + " is not in the schema"
		}
		if why := root.check(property, v[name]); ok && why != "" {
			return name + ": " + why
		}
	}
	return ""
}

// TestSchema checks each line of JSON that the command prints.
func TestSchema(t *testing.T) {
	root := readSchema(t)
	names, err := filepath.Glob("testdata/golden/*json*.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, "{") {
				continue
			}
			var v any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%s: %v in %s", name, err, line)
			}
			if why := root.check(root.Defs["packet"], v); why != "" {
				t.Errorf("%s: %s, in %s", name, why, line)
			}
			lines++
		}
	}
	if lines < 100 {
		t.Errorf("%d lines", lines)
	}
}

// jsonNames returns the names of a struct's fields in JSON.
func jsonNames(v any) (names []string) {
	for i := range reflect.TypeOf(v).NumField() {
		name, _, _ := strings.Cut(reflect.TypeOf(v).Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestSchemaNames has all fields of what is printed in the schema, and no others.
func TestSchemaNames(t *testing.T) {
	root := readSchema(t)
	for def, v := range map[string]any{"packet": record{}, "context": contextRecord{}, "flow": flowRecord{}, "timing": timingRecord{}} {
		have := slices.Sorted(maps.Keys(root.Defs[def].Properties))
		want := jsonNames(v)
		if !slices.Equal(have, want) {
			t.Errorf("%s has %v, want %v", def, have, want)
		}
	}
}
