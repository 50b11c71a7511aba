package ssefanout

import (
	"bytes"
	"compress/gzip"
	"io"
	"strconv"
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

// Whatever a Content-Encoding names that is no coding, the stream is what it is.
func TestContentEncodingThatIsNoCoding(t *testing.T) {
	for _, encoding := range []string{
		"", "none", "None", "identity", "utf-8", "UTF8", "chunked", "text", "off", "*", "none, identity", " , none", "gzip;q=0", "binary", "8bit",
	} {
		t.Run(encoding, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				c := s.get("/events")
				s.origin.next().answer(200, "Content-Type", "text/event-stream", "Content-Encoding", encoding).events(1, 2)
				c.expect(primer("") + numbered(1, 2))
				if got := c.header["Content-Encoding"]; got != nil {
					t.Errorf("Content-Encoding is %q, want none", got)
				}
			})
		})
	}
}

// A coding that nobody here decodes is told, and never taken for text.
func TestContentEncodingThatIsNotDecoded(t *testing.T) {
	for _, encoding := range []string{"deflate", "compress", "X-Compress", "lzma", "xz", "dcz", "gzip, br", "gzip, gzip", "none, deflate"} {
		t.Run(encoding, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, Options{})
				s.get("/events")
				up := s.origin.next().answer(200, "Content-Type", "text/event-stream", "Content-Encoding", encoding).send(numbered(1, 2))
				if synctest.Wait(); !up.closed() {
					t.Error("the connection goes on")
				}
				why, _ := s.lastUpstreamLog().ContextMap()["error"].(string)
				if !strings.Contains(why, strconv.Quote(encoding)) {
					t.Errorf("the log says %q, want the coding", why)
				}
			})
		})
	}
}

// The media type is passed on with its parameters: a client may take a text without a
// charset for something else than UTF-8.
func TestContentTypeIsTheOrigins(t *testing.T) {
	for _, contentType := range []string{
		"text/event-stream", "text/event-stream; charset=utf-8", "text/event-stream;charset=UTF-8", "Text/Event-Stream",
		`text/event-stream; charset="utf-8"; profile=a`, "text/event-stream;", "text/event-stream; =", "text/event-stream;charset=utf-8;charset=utf-8",
	} {
		t.Run(contentType, func(t *testing.T) {
			for form, make := range map[string]func(*testing.T, Options) *setup{"endpoint": newSetup, "wrapping": newWrappingSetup} {
				t.Run(form, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := make(t, Options{})
						first := s.get("/events")
						s.origin.next().answer(200, "Content-Type", contentType).events(1, 1)
						later := s.get("/events")
						synctest.Wait()
						for _, c := range []*client{first, later} {
							if got := c.header.Get("Content-Type"); got != contentType {
								t.Errorf("Content-Type is %q, want %q", got, contentType)
							}
						}
					})
				})
			}
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
