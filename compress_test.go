package ssefanout

import (
	"bufio"
	"compress/gzip"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
)

// Over each carrier of a real Caddy: clients that join at any time, beside one that does not
// accept gzip.
func TestCompressedOverEachCarrier(t *testing.T) {
	for _, tc := range []struct{ name, version, directives string }{
		{name: "direct", version: "HTTP/1.1"},
		{name: "HTTP/1.1", version: "HTTP/1.1", directives: "direct off"},
		{name: "HTTP/2", version: "HTTP/2.0"},
		{name: "HTTP/3", version: "HTTP/3.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			awaitNoCompressor(t)
			origin := newLiveOrigin(t)
			s := run(t, "encode gzip zstd\nsse_fanout "+origin.addr+" {\ncompress gzip from 1\nheartbeat 50ms\n"+tc.directives+"\n}")
			url, client := s.over(tc.version)
			plain := open(t, client, url+"/events", "Accept-Encoding", "identity")
			if got := plain.header.Values("Vary"); len(got) != 1 || got[0] != "Accept-Encoding" || plain.header.Get("Content-Encoding") != "" {
				t.Errorf("without gzip, the header is %v", plain.header)
			}
			var all []*stream
			for i := range 60 {
				if i%10 == 0 {
					all = append(all, openCompressed(t, client, url+"/events"))
				}
				event := numbered(i, i)
				if i%7 == 0 {
					event = strings.Replace(event, "data: ", "data: "+strings.Repeat("again and again ", 700), 1)
				}
				origin.send(event)
				for _, c := range append(all, plain) {
					c.expectEvent(event)
				}
			}
			stats := counted.CompressedOf.Load()
			if sent := counted.Compressed.Load(); sent == 0 || stats < 2*sent {
				t.Errorf("%d bytes were compressed to %d", stats, sent)
			}
		})
	}
}

// awaitNoCompressor waits at the end of a test until all compressors of the process are given
// back: Caddy notices some time after that clients have gone.
func awaitNoCompressor(t *testing.T) {
	t.Cleanup(func() {
		waitFor(t, "all compressors are given back", func() bool { return compressors.InUse() == 0 })
	})
}

// openCompressed asks for a stream in gzip.
func openCompressed(t *testing.T, client *http.Client, url string, header ...string) *stream {
	t.Helper()
	c := ask200(t, client, url, append(header, "Accept-Encoding", "gzip")...)
	if c.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("the header is %v", c.header)
	}
	z, err := gzip.NewReader(c.body)
	if err != nil {
		t.Fatal(err)
	}
	c.body = bufio.NewReader(z)
	if got := c.next(); !strings.HasPrefix(got, ": sse_fanout\n") {
		t.Errorf("the stream begins with %q", got)
	}
	return c
}

// expectEvent reads up to the next block that is no comment.
func (s *stream) expectEvent(want string) {
	s.t.Helper()
	got := s.next()
	for strings.HasPrefix(got, ":") {
		got = s.next()
	}
	if got+"\n" != want {
		s.t.Fatalf("got %.60q, want %.60q", got, want)
	}
}

func TestWhoGetsGzip(t *testing.T) {
	on := settings.Compress{Encoding: "gzip", From: 1}
	for _, tc := range []struct {
		name     string
		compress settings.Compress
		accept   string
		want     string
	}{
		{name: "asks", compress: on, accept: "gzip, deflate, br", want: "gzip"},
		{name: "does not ask", compress: on, accept: "br"},
		{name: "prefers identity", compress: on, accept: "identity, gzip;q=0.5"},
		{name: "nothing is compressed", accept: "gzip"},
		{name: "nothing is compressed, and it excludes all", accept: "*;q=0"},
		{name: "too few", compress: settings.Compress{Encoding: "gzip"}, accept: "gzip"},
		{name: "too few, and it must have gzip", compress: settings.Compress{Encoding: "gzip"}, accept: "gzip, identity;q=0", want: "gzip"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bothWriters(t, func(t *testing.T) {
				if overGzip {
					return // which sets both
				}
				s := newSetup(t, Options{Compress: tc.compress})
				c := s.get("/events", "Accept-Encoding", tc.accept)
				up := s.origin.next().accept()
				up.events(1, 3)
				synctest.Wait()
				if got := c.header.Get("Content-Encoding"); got != tc.want {
					t.Errorf("the coding is %q, want %q", got, tc.want)
				}
				varies := c.header.Get("Vary") == "Accept-Encoding"
				if varies != (tc.compress.Encoding != "") {
					t.Errorf("the answer varies: %t", varies)
				}
				if tc.want == "" {
					c.expect(primer("") + numbered(1, 3))
				}
			})
		})
	}
}

func TestClientThatExcludesAllCodings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, Options{Compress: settings.Compress{Encoding: "gzip"}})
		c := s.get("/events", "Accept-Encoding", "identity;q=0, *;q=0")
		<-c.done
		if err, ok := errors.AsType[caddyhttp.HandlerError](c.err); !ok || err.StatusCode != http.StatusNotAcceptable {
			t.Errorf("got %v, want status 406", c.err)
		}
		if c.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("the header is %v", c.header)
		}
		if n := s.pool.stats.Rejected.Get("encoding"); n != 1 {
			t.Errorf("%d were turned away", n)
		}
		s.origin.idle()
	})
}

// A client that is told something that others are not, and one that does not read, are as
// without compression. The others share the pieces.
func TestCompressedClientThatDoesNotRead(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		if !overGzip {
			return
		}
		s := newSetup(t, Options{})
		up, reading := s.joinLive(1, 1)
		stalled := s.get("/events")
		stalled.stall()
		for i := 2; i < 40; i++ {
			up.events(i, i)
			time.Sleep(time.Second)
		}
		if !stalled.ended() || stalled.panic == nil {
			t.Error("a client that does not read has not been cut")
		}
		reading.expect(numbered(2, 39))
		if n := compressors.InUse(); n != 1 {
			t.Errorf("%d compressors are in use", n)
		}
		reading.leave()
		if n := compressors.InUse(); n != 0 {
			t.Errorf("%d compressors are left", n)
		}
	})
}
