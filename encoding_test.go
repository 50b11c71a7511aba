package ssefanout

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// A compressor is what an origin compresses its stream with.
type compressor interface {
	io.WriteCloser
	Flush() error
}

func newCompressor(t *testing.T, encoding string, to io.Writer) compressor {
	switch strings.ToLower(encoding) {
	case "br":
		return brotli.NewWriter(to)
	case "zstd":
		w, err := zstd.NewWriter(to, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	return gzip.NewWriter(to)
}

// compressed returns text compressed and flushed, for c.send.
func compressed(t *testing.T, w compressor, buf *bytes.Buffer, text string) string {
	t.Helper()
	buf.Reset()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func TestCompressedStreamIsDecodedEventByEvent(t *testing.T) {
	for _, encoding := range []string{"gzip", "x-gzip", "GZip", "zstd", "br"} {
		t.Run(encoding, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				up := s.origin.next().answer(200, "Content-Type", "text/event-stream", "Content-Encoding", encoding)
				c.expect(primer(""))
				if got := c.header.Get("Content-Encoding"); got != "" {
					t.Errorf("Content-Encoding is %q, want none", got)
				}
				var buf bytes.Buffer
				w := newCompressor(t, encoding, &buf)
				for i := 1; i <= 5; i++ {
					part := compressed(t, w, &buf, numbered(i, i))
					up.send(part[:len(part)/2]).send(part[len(part)/2:])
					c.expect(numbered(i, i))
				}
				buf.Reset()
				_ = w.Close()
				up.send(buf.String()).end()
				s.origin.await().accept().events(6, 6)
				c.expect(numbered(6, 6))
				if n := s.logs.FilterMessage("upstream ended, reconnecting").Len(); n != 1 {
					t.Errorf("%d clean ends in the log, want 1", n)
				}
			})
		})
	}
}

func TestCompressedStreamThatBreaks(t *testing.T) {
	for _, encoding := range []string{"gzip", "zstd", "br"} {
		t.Run(encoding, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				answer := func() *conn {
					return s.origin.await().answer(200, "Content-Type", "text/event-stream", "Content-Encoding", encoding)
				}
				var buf bytes.Buffer
				part := compressed(t, newCompressor(t, encoding, &buf), &buf, numbered(1, 2))

				answer().send(part).abort() // between two events
				c.expect(primer("") + numbered(1, 2))
				answer().send(part[:len(part)/2]).end()

				up := answer()
				// The decoder finds out at its own pace; the source is told with
				// what it writes next.
				for range 10 {
					if up.closed() {
						break
					}
					up.send(strings.Repeat("garbage\xff", 1000))
				}
				if !up.closed() {
					t.Fatal("an origin that sends garbage is still listened to")
				}
				s.origin.await().accept().events(3, 3)
				c.expect(numbered(3, 3))
			})
		})
	}
}
