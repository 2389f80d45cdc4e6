// What Go makes of each document of a file: encoding/json into a map, into a struct (whose members
// it matches without regard to case), and with the literals of numbers kept.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"sort"
	"strings"
)

// Params are the members that decide a call.
type Params struct {
	Name      any            `json:"name"`
	Arguments map[string]any `json:"arguments"`
}

// Message is a message as a typed server declares it.
type Message struct {
	Jsonrpc string  `json:"jsonrpc"`
	ID      any     `json:"id"`
	Method  any     `json:"method"`
	Params  *Params `json:"params"`
}

type reader struct {
	name string
	read func(raw []byte, out *bytes.Buffer) error
}

// More readers are added where the toolchain has them.
var readers = []reader{
	{"go-map:value", func(raw []byte, out *bytes.Buffer) error {
		var value any
		err := json.Unmarshal(raw, &value)
		tree(value, out)
		return err
	}},
	{"go-map:literal", func(raw []byte, out *bytes.Buffer) error {
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber()
		var value any
		if err := decoder.Decode(&value); err != nil {
			return err
		}
		tree(value, out)
		if _, err := decoder.Token(); err != io.EOF {
			return fmt.Errorf("more follows")
		}
		return nil
	}},
	{"go-struct:call", func(raw []byte, out *bytes.Buffer) error {
		var message Message
		err := json.Unmarshal(raw, &message)
		call(message, out)
		return err
	}},
}

func call(message Message, out *bytes.Buffer) {
	tree(message.Method, out)
	tree(message.ID, out)
	if message.Method != "tools/call" && message.Method != "prompts/get" {
		return
	}
	params := message.Params
	if params == nil {
		params = &Params{}
	}
	tree(params.Name, out)
	if params.Arguments == nil {
		tree(nil, out)
	} else {
		tree(params.Arguments, out)
	}
}

func tree(value any, out *bytes.Buffer) {
	switch value := value.(type) {
	case nil:
		out.WriteByte('n')
	case bool:
		if value {
			out.WriteByte('t')
		} else {
			out.WriteByte('f')
		}
	case float64:
		// Adding a zero makes one of two.
		fmt.Fprintf(out, "d%016x", math.Float64bits(value+0))
	case json.Number:
		fmt.Fprintf(out, "l%s;", value)
	case string:
		fmt.Fprintf(out, "s%d:%s", len(value), value)
	case []any:
		out.WriteByte('[')
		for _, element := range value {
			tree(element, out)
		}
		out.WriteByte(']')
	case map[string]any:
		names := make([]string, 0, len(value))
		for name := range value {
			names = append(names, name)
		}
		sort.Strings(names)
		out.WriteByte('{')
		for _, name := range names {
			tree(name, out)
			tree(value[name], out)
		}
		out.WriteByte('}')
	default:
		panic(fmt.Sprintf("%T", value))
	}
}

func digest(read func([]byte, *bytes.Buffer) error, raw []byte) string {
	var out bytes.Buffer
	if read(raw, &out) != nil {
		return "-"
	}
	sum := sha256.Sum256(out.Bytes())
	return hex.EncodeToString(sum[:8])
}

func main() {
	file, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	to := bufio.NewWriter(os.Stdout)
	defer to.Flush()
	names := make([]string, len(readers))
	for at, reader := range readers {
		names[at] = reader.name
	}
	fmt.Fprintln(to, strings.Join(names, "\t"))
	for lines.Scan() {
		raw, err := base64.StdEncoding.DecodeString(lines.Text())
		if err != nil {
			panic(err)
		}
		for at, reader := range readers {
			names[at] = digest(reader.read, raw)
		}
		fmt.Fprintln(to, strings.Join(names, "\t"))
	}
	if lines.Err() != nil {
		panic(lines.Err())
	}
}
