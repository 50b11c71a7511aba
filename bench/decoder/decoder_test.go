// Package decoder compares the decoder of internal/sse with two public ones. It
// is a module of its own, so that they stay out of the root's go.mod.
package decoder

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/launchdarkly/eventsource"
	"github.com/tmaxmax/go-sse"

	ours "github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

const maxEvent = 1 << 20

// body is a response body: it has no WriteTo, and reads come in pieces.
type body struct{ r *bytes.Reader }

func (b body) Read(p []byte) (int, error) { return b.r.Read(p) }

// decoders read a stream to its end and return how many events it had, and the
// sum of their data's lengths, which must be the same for all.
var decoders = []struct {
	name   string
	decode func(io.Reader) (events, size int, err error)
}{
	{"ours", decodeOurs},
	{"go-sse", decodeGoSSE},
	{"launchdarkly", decodeLaunchDarkly},
}

// The size that io.Copy and net/http/httputil.ReverseProxy use.
var copyBuffer = make([]byte, 32<<10)

func decodeOurs(r io.Reader) (events, size int, err error) {
	d := ours.NewDecoder(maxEvent, func(e *ours.Event) {
		events++
		size += len(e.Data)
	})
	_, err = io.CopyBuffer(d, r, copyBuffer)
	return events, size, err
}

func decodeGoSSE(r io.Reader) (events, size int, err error) {
	for e, err := range sse.Read(r, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return events, size, err
		}
		events++
		size += len(e.Data)
	}
	return events, size, nil
}

func decodeLaunchDarkly(r io.Reader) (events, size int, err error) {
	d := eventsource.NewDecoder(r)
	for {
		e, err := d.Decode()
		if errors.Is(err, io.EOF) {
			return events, size, nil
		}
		if err != nil {
			return events, size, err
		}
		events++
		size += len(e.Data())
	}
}

// streams are about 2 MiB each, so that what a decoder sets up does not count.
var streams = []struct{ name, stream string }{
	{"200B", repeated("id: 12345\nevent: tick\ndata: " + strings.Repeat("x", 170) + "\n\n")},
	{"64KiB", repeated("id: 12345\nevent: tick\ndata: " + strings.Repeat("x", 64<<10) + "\n\n")},
	{"64KiB-JSON-lines", repeated("id: 12345\nevent: tick\n" + jsonLines(64<<10) + "\n")},
}

func repeated(event string) string { return strings.Repeat(event, 2<<20/len(event)) }

func jsonLines(size int) string {
	var lines strings.Builder
	lines.WriteString("data: [\n")
	for i := 0; lines.Len() < size; i++ {
		fmt.Fprintf(&lines, "data:   {\ndata:     \"id\": %d,\ndata:     \"name\": \"sensor %d\",\ndata:     \"value\": %d.5\ndata:   },\n", i, i%17, i*31%1000)
	}
	lines.WriteString("data: ]\n")
	return lines.String()
}

func BenchmarkDecoder(b *testing.B) {
	for _, s := range streams {
		for _, d := range decoders {
			b.Run(s.name+"/"+d.name, func(b *testing.B) {
				wantEvents, wantSize, err := decodeOurs(strings.NewReader(s.stream))
				if err != nil {
					b.Fatal(err)
				}
				stream := []byte(s.stream)
				b.SetBytes(int64(len(stream)))
				b.ReportAllocs()
				for b.Loop() {
					events, size, err := d.decode(body{bytes.NewReader(stream)})
					if err != nil || events != wantEvents || size != wantSize {
						b.Fatalf("got %d events of %d bytes, %v, want %d of %d", events, size, err, wantEvents, wantSize)
					}
				}
			})
		}
	}
}
