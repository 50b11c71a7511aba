package ssefanout

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// A stream in gzip goes on over a reload that changes nothing for its handler. Over one that
// changes the handler, it ends as a whole member, and the client goes on where it was.
func TestCompressedStreamOverReloads(t *testing.T) {
	for _, tc := range []struct{ name, version, option string }{
		{name: "direct", version: "HTTP/1.1"},
		{name: "HTTP/1.1", version: "HTTP/1.1", option: "direct off"},
		{name: "HTTP/2", version: "HTTP/2.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "direct" {
				needsDirect(t)
			}
			awaitNoCompressor(t)
			origin := newResumingOrigin(t)
			s := newSite(t)
			config := func(header, heartbeat string) {
				s.load(fmt.Sprintf("header X-A %s\nsse_fanout %s {\ncompress gzip from 1\nstream_close_delay 50ms\nheartbeat %s\n%s\n}",
					header, origin.addr(), heartbeat, tc.option))
			}
			config("a", "15s")
			url, client := s.over(tc.version)
			first := openCompressed(t, client, url+"/events")
			last := 0
			publish := func(n int, clients ...*stream) {
				t.Helper()
				for range n {
					last++
					origin.publish(last)
					for _, c := range clients {
						c.expectEvent(numbered(last, last))
					}
				}
			}
			publish(1, first)
			second := openCompressed(t, client, url+"/events") // it waits for a restart point
			publish(5, first, second)
			if all, direct := subscribersNow(); all != 2 || direct != map[bool]int{true: 2}[tc.name == "direct"] {
				t.Errorf("of %d clients, %d were handed over", all, direct)
			}
			config("b", "15s") // nothing changes for the handler
			publish(200, first, second)
			config("b", "16s")
			for _, c := range []*stream{first, second} {
				c.expectWhole()
			}
			id := fmt.Sprint(last)
			publish(2)
			back := openCompressed(t, client, url+"/events", "Last-Event-ID", id)
			back.expectEvent(numbered(last-1, last-1))
			back.expectEvent(numbered(last, last))
			publish(3, back)
		})
	}
}

// expectWhole reads to the end of a stream in gzip, where its checksum and length must be right.
func (s *stream) expectWhole() {
	s.t.Helper()
	timer := time.AfterFunc(10*time.Second, s.cancel)
	defer timer.Stop()
	rest, err := io.ReadAll(s.body)
	if err != nil {
		s.t.Errorf("the stream ends with %q and %v", rest, err)
	}
}
