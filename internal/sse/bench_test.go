package sse

import (
	"strings"
	"testing"
)

// Run with: go test -run '^$' -bench . ./internal/sse
func BenchmarkDecode(b *testing.B) {
	event := func(size int) string {
		return "id: 12345\nevent: tick\ndata: " + strings.Repeat("x", size) + "\n\n"
	}
	for _, bm := range []struct {
		name   string
		stream string
		size   int // of a Write
	}{
		{"200B", strings.Repeat(event(200-len(event(0))), 160), 32 << 10},
		{"64KiB", event(64 << 10), 128 << 10},
		{"comments", strings.Repeat(": keep-alive\n\n", 2000), 32 << 10},
		{"unknown-line-drip", "unknown: " + strings.Repeat("x", 64<<10) + "\n", 1 << 10},
		{"huge-line-drip", event(64 << 10), 1 << 10},
		{"data-lines", strings.Repeat("data: "+strings.Repeat("x", 40)+"\n", 1000) + "\n", 32 << 10},
		{"CRLF", strings.ReplaceAll(strings.Repeat(event(200-len(event(0))), 160), "\n", "\r\n"), 32 << 10},
		{"multibyte", "data: " + strings.Repeat("我現在都看實況", 3000) + "\n\n", 128 << 10},
		{"byte-by-byte", strings.Repeat(event(200-len(event(0))), 10), 1},
	} {
		b.Run(bm.name, func(b *testing.B) {
			d := NewDecoder(1<<20, func(*Event) {})
			stream := []byte(bm.stream)
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				for rest := stream; len(rest) > 0; {
					n := min(bm.size, len(rest))
					if _, err := d.Write(rest[:n]); err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, bm := range []struct {
		name, data string
	}{
		{"200B", strings.Repeat("x", 170)},
		{"64KiB", strings.Repeat("x", 64<<10)},
		{"data-lines", strings.Repeat(strings.Repeat("x", 40)+"\n", 1000)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			e := Event{ID: []byte("12345"), HasID: true, Type: []byte("tick"), Data: []byte(bm.data), HasData: true}
			wire := Append(nil, &e)
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				wire = Append(wire[:0], &e)
			}
		})
	}
}
