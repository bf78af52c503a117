package main

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// encode writes a value of JSON into dst, in the layout of a C program. t is its type,
// or nil if unknown. What v leaves out is zero.
func encode(dst []byte, t btf.Type, v any) error {
	if list, ok := v.([]any); ok && isDump(list, len(dst)) {
		return encodeBytes(dst, list)
	}
	network := false
	if t != nil {
		network = networkOrder(t)
		t = btf.UnderlyingType(t)
	}
	switch t := t.(type) {
	case nil:
		return encodeUntyped(dst, v)
	case *btf.Int:
		return encodeInt(dst, v, t.Encoding == btf.Signed, network)
	case *btf.Enum:
		return encodeEnum(dst, t, v)
	case *btf.Array:
		return encodeArray(dst, t, v)
	case *btf.Struct:
		return encodeMembers(dst, t.Name, t.Members, v)
	case *btf.Union:
		return encodeMembers(dst, t.Name, t.Members, v)
	}
	return fmt.Errorf("a value of the kind %s cannot be given", strings.TrimPrefix(fmt.Sprintf("%T", t), "*btf."))
}

var dumpedByte = regexp.MustCompile(`^0x[0-9a-fA-F]{2}$`)

// isDump reports whether a list is size bytes as bpftool dumps them.
func isDump(list []any, size int) bool {
	if len(list) != size {
		return false
	}
	for _, v := range list {
		if s, ok := v.(string); !ok || !dumpedByte.MatchString(s) {
			return false
		}
	}
	return true
}

func encodeBytes(dst []byte, list []any) error {
	if len(list) != len(dst) {
		return fmt.Errorf("%s given, %d wanted", count(len(list), "byte"), len(dst))
	}
	for i, v := range list {
		if err := encodeInt(dst[i:i+1], v, false, false); err != nil {
			return fmt.Errorf("byte %d: %w", i, err)
		}
	}
	return nil
}

// networkOrder reports whether the name of a type says that it is big-endian, as that
// of __be32 does.
func networkOrder(t btf.Type) bool {
	for {
		switch v := t.(type) {
		case *btf.Typedef:
			if strings.HasPrefix(v.Name, "__be") {
				return true
			}
			t = v.Type
		case *btf.Const:
			t = v.Type
		case *btf.Volatile:
			t = v.Type
		case *btf.TypeTag:
			t = v.Type
		default:
			return false
		}
	}
}

// encodeUntyped encodes a value of which only the size is known.
func encodeUntyped(dst []byte, v any) error {
	s, isText := v.(string)
	switch list, isList := v.([]any); {
	case isList:
		return encodeBytes(dst, list)
	case isIntSize(len(dst)):
		return encodeInt(dst, v, true, false)
	case isText:
		return encodeText(dst, s)
	}
	return fmt.Errorf("%s for %d bytes whose fields the object does not tell: give a list of bytes", quoted(v), len(dst))
}

func isIntSize(n int) bool { return n == 1 || n == 2 || n == 4 || n == 8 }

// encodeInt encodes numbers, strings with numbers in the syntax of C, such as 0x10 and
// htons(80), and true and false. A signed type also takes numbers that fit it as
// unsigned.
func encodeInt(dst []byte, v any, signed, network bool) error {
	text, isText := v.(string)
	if m := inNetworkOrder.FindStringSubmatch(text); m != nil {
		return encodeSwapped(dst, m[2], map[string]int{"s": 2, "l": 4}[m[1]])
	}
	n, err := toInt(v)
	if err != nil && isText {
		return encodeText(dst, text)
	}
	if err != nil {
		return err
	}
	bits := uint(8 * len(dst))
	least := new(big.Int)
	if signed {
		least.Neg(least.Lsh(big.NewInt(1), bits-1))
	}
	if n.Cmp(least) < 0 || n.BitLen() > int(bits) {
		return fmt.Errorf("%s does not fit in %d bits", n, bits)
	}
	if n.Sign() < 0 {
		n.Add(n, new(big.Int).Lsh(big.NewInt(1), bits))
	}
	n.FillBytes(dst)
	if !network && littleEndian {
		slices.Reverse(dst)
	}
	return nil
}

var inNetworkOrder = regexp.MustCompile(`^hton([sl])\((\w+)\)$`)

// encodeSwapped writes htons() or htonl() of a number of size bytes, to an
// integer that may be larger.
func encodeSwapped(dst []byte, number string, size int) error {
	if len(dst) < size {
		return fmt.Errorf("%d bytes in network order do not fit in %d", size, len(dst))
	}
	if !littleEndian {
		dst = dst[len(dst)-size:]
	}
	return encodeInt(dst[:size], json.Number(number), false, true)
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

func toInt(v any) (*big.Int, error) {
	text := ""
	switch v := v.(type) {
	case bool:
		if v {
			return big.NewInt(1), nil
		}
		return new(big.Int), nil
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	if n, ok := new(big.Int).SetString(text, 0); ok {
		return n, nil
	}
	return nil, fmt.Errorf("%s is no whole number", quoted(v))
}

// quoted returns a value as JSON has it.
func quoted(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

func encodeEnum(dst []byte, t *btf.Enum, v any) error {
	name, ok := v.(string)
	if !ok {
		return encodeInt(dst, v, t.Signed, false)
	}
	var names []string
	for _, value := range t.Values {
		if value.Name == name {
			return encodeInt(dst, json.Number(strconv.FormatUint(value.Value, 10)), false, false)
		}
		names = append(names, value.Name)
	}
	return fmt.Errorf("%q is none of %s", name, strings.Join(names, ", "))
}

// encodeArray encodes a list of elements, or text: an address, or characters.
func encodeArray(dst []byte, t *btf.Array, v any) error {
	size, err := btf.Sizeof(t.Type)
	if err != nil {
		return err
	}
	switch v := v.(type) {
	case []any:
		if len(v) > int(t.Nelems) {
			return fmt.Errorf("%d elements, but there is room for %d", len(v), t.Nelems)
		}
		for i, element := range v {
			if err := encode(dst[i*size:(i+1)*size], t.Type, element); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
		}
		return nil
	case string:
		err := encodeText(dst, v)
		if err != nil && size == 1 && len(v) <= len(dst) {
			copy(dst, v)
			return nil
		}
		return err
	}
	return fmt.Errorf("%s for an array of %d elements: give a list", quoted(v), t.Nelems)
}

func encodeMembers(dst []byte, typeName string, members []btf.Member, v any) error {
	switch v := v.(type) {
	case string:
		return encodeText(dst, v)
	case []any:
		return encodeBytes(dst, v)
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if err := encodeMember(dst, members, name, v[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	return fmt.Errorf("%s for a struct %s: give an object with its fields (%s)", quoted(v), typeName, strings.Join(fieldNames(members), ", "))
}

// encodeMember encodes a field, which may be inside an anonymous struct or union.
func encodeMember(dst []byte, members []btf.Member, name string, v any) error {
	for _, m := range members {
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			return err
		}
		at := int(m.Offset.Bytes())
		switch {
		case m.Name == name && m.BitfieldSize > 0:
			return errors.New("bit fields cannot be given by name: give the bytes of the whole struct")
		case m.Name == name:
			return encode(dst[at:at+size], m.Type, v)
		case m.Name == "" && slices.Contains(fieldNames([]btf.Member{m}), name):
			return encodeMember(dst[at:at+size], inner(m), name, v)
		}
	}
	return fmt.Errorf("no such field: there are %s", strings.Join(fieldNames(members), ", "))
}

// inner returns the members of a member that is a struct or union.
func inner(m btf.Member) []btf.Member {
	switch t := btf.UnderlyingType(m.Type).(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

func fieldNames(members []btf.Member) (names []string) {
	for _, m := range members {
		if m.Name != "" {
			names = append(names, m.Name)
		} else {
			names = append(names, fieldNames(inner(m))...)
		}
	}
	return names
}

// encodeText encodes addresses and the like, whose text defines their bytes.
func encodeText(dst []byte, s string) error {
	b, err := parseText(s, len(dst))
	if err != nil {
		return err
	}
	if len(b) != len(dst) {
		return fmt.Errorf("%q has %d bytes, and %d are wanted", s, len(b), len(dst))
	}
	copy(dst, b)
	return nil
}

func parseText(s string, size int) ([]byte, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.AsSlice(), nil
	}
	if p, err := netip.ParsePrefix(s); err == nil { // the key of an LPM trie
		return append(binary.NativeEndian.AppendUint32(nil, uint32(p.Bits())), p.Addr().AsSlice()...), nil
	}
	if a, err := net.ParseMAC(s); err == nil && len(a) == 6 {
		return a, nil
	}
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		if b, err := hex.DecodeString(digits); err == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%q is no address, prefix or MAC address, nor 0x with the digits of %d bytes", s, size)
}
