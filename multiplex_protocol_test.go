package ssefanout

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const multiplexedSite = `
	handle /streams* {
		sse_multiplex
	}
	handle {
		sse_fanout %s
	}`

func TestMultiplexOverEachVersion(t *testing.T) {
	for _, version := range httpVersions {
		t.Run(version, func(t *testing.T) {
			origin := newLiveOrigin(t)
			s := run(t, fmt.Sprintf(multiplexedSite, origin.addr))
			url, client := s.over(version)
			c := s.multiplexedOver(client, url, "a=/a&b=/b")
			if c.resp.Proto != version {
				t.Errorf("it is over %s", c.resp.Proto)
			}
			c.expectAll("a/open {}", "b/open {}")
			origin.send(numbered(1, 1))
			c.expectAll("a/message event 1", "b/message event 1")
			if c.last != "a:1,b:1" {
				t.Errorf("the id is %q", c.last)
			}
			c.cancel()
			waitFor(t, "the connection to end", func() bool { return len(multiplexConns()) == 0 })
			waitFor(t, "its streams to end", func() bool { all, _ := subscribersNow(); return all == 0 })
		})
	}
}

// A client of HTTP/1.0 gets its streams without chunks, up to the end of its connection.
func TestMultiplexOverHTTP10(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(multiplexedSite, origin.addr))
	_, r := s.dial("GET /streams?a=/a&b=/b HTTP/1.0\r\nHost: a\r\n\r\n")
	header := readUntil(t, r, "\r\n\r\n")
	if !strings.HasPrefix(header, "HTTP/1.0 200 OK\r\n") || strings.Contains(header, "Transfer-Encoding") {
		t.Errorf("got %q", header)
	}
	got := readUntil(t, r, "event: a/open\ndata: {}\n\n")
	if !strings.Contains(got, "b/open") {
		got += readUntil(t, r, "event: b/open\ndata: {}\n\n")
	}
	origin.send(numbered(1, 1))
	for _, alias := range []string{"a", "b"} {
		if event := "event: " + alias + "/message\ndata: event 1\n\n"; !strings.Contains(got, event) {
			got += readUntil(t, r, event)
		}
	}
	if strings.Contains(got, "\r") {
		t.Errorf("got %q, want no chunks", got)
	}
}

// A HEAD tells what a GET would, and costs no connection. Other methods are refused.
func TestMultiplexOfOtherMethods(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(multiplexedSite, origin.addr))
	resp, body := s.request(http.MethodHead, "/streams?a=/a")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || body != "" {
		t.Errorf("HEAD: got %s, %q and %q", resp.Status, resp.Header.Get("Content-Type"), body)
	}
	if resp, body := s.request(http.MethodHead, "/streams"); resp.StatusCode != http.StatusBadRequest || body != "" {
		t.Errorf("HEAD without a stream: got %s and %q", resp.Status, body)
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, "BREW"} {
		for _, path := range []string{"/streams?a=/a", "/streams/client.js"} {
			resp, body := s.request(method, path)
			if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" || !strings.Contains(body, method) {
				t.Errorf("%s %s: got %s, Allow %q and %q", method, path, resp.Status, resp.Header.Get("Allow"), body)
			}
		}
	}
	if len(origin.asked()) != 0 || len(multiplexConns()) != 0 {
		t.Errorf("the origin was asked %d times", len(origin.asked()))
	}
}

// An alias becomes a part of event types and of ids: nothing but plain names gets there.
func TestMultiplexRefusesOddAliases(t *testing.T) {
	s := run(t, fmt.Sprintf(multiplexedSite, newLiveOrigin(t).addr))
	long := strings.Repeat("a", 32)
	for _, name := range []string{
		"", "%00", "%ff", "%c3%a9", "a%0a", "a%0d%0aevent:%20x", "a/b", "a%2fb", "a:b", "a,b", "a.b", "a+b", "a%20b",
		"-a", "_a", "~a", "%", "%2", "%zz", "a;b", long + "a", "a&a", "a&%61",
	} {
		resp, body := s.request(http.MethodGet, "/streams?"+strings.ReplaceAll(name, "&", "=/x&")+"=/x")
		if resp.StatusCode != http.StatusBadRequest || !strings.HasPrefix(body, "sse_multiplex: reading ") || strings.Count(body, "\n") != 1 {
			t.Errorf("%q: got %s and %q", name, resp.Status, body)
		}
	}
	for _, name := range []string{"a", "0", "a-b_c", "A&a", "%61", long} {
		if resp, _ := s.request(http.MethodHead, "/streams?"+strings.ReplaceAll(name, "&", "=/x&")+"=/x"); resp.StatusCode != http.StatusOK {
			t.Errorf("%q: got %s", name, resp.Status)
		}
	}
}

// A connection has 32 streams, and not one more.
func TestMultiplexOf32Streams(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(multiplexedSite, origin.addr))
	query := func(n int) string {
		var params []string
		for i := range n {
			params = append(params, fmt.Sprintf("s%d=/e/%d", i, i))
		}
		return strings.Join(params, "&")
	}
	if resp, body := s.request(http.MethodGet, "/streams?"+query(33)); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "more than 32 streams") {
		t.Errorf("33 streams: got %s and %q", resp.Status, body)
	}
	c := s.multiplexed(query(32))
	var opened, told []string
	for i := range 32 {
		opened = append(opened, fmt.Sprintf("s%d/open {}", i))
		told = append(told, fmt.Sprintf("s%d/message event 1", i))
	}
	c.expectAll(opened...)
	origin.send(numbered(1, 1))
	c.expectAll(told...)
	if n := strings.Count(c.last, ","); n != 31 {
		t.Errorf("the id is %q, want all positions", c.last)
	}

	// With long names, the positions of all might not fit.
	long := strings.Repeat("a", 30)
	resp, body := s.request(http.MethodGet, "/streams?"+strings.ReplaceAll(query(32), "s", long))
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "use shorter names") {
		t.Errorf("long names: got %s and %q", resp.Status, body)
	}
}

// An id has 1,024 bytes at most. One of other streams says nothing about these.
func TestMultiplexBoundsIDs(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(multiplexedSite, origin.addr))
	for _, n := range []int{1024, 1025} {
		id := "a:" + strings.Repeat("x", n-2)
		for _, tc := range []struct{ query, header string }{{"", id}, {"&lastEventId=" + id, ""}} {
			want := http.StatusOK
			if n > 1024 {
				want = http.StatusBadRequest
			}
			resp, _ := s.request(http.MethodHead, "/streams?a=/a"+tc.query, "Last-Event-ID", tc.header)
			if resp.StatusCode != want {
				t.Errorf("an id of %d bytes: got %s, want %d", n, resp.Status, want)
			}
		}
	}
	c := s.multiplexed("a=/a", "Last-Event-ID", "other:1,more:~AAAAAAAAAAA")
	c.expectAll("a/open {}")
	origin.send(numbered(1, 1))
	c.expectAll("a/message event 1") // no gap
	if c.last != "a:1" {
		t.Errorf("the id is %q", c.last)
	}
}

// A client that comes back for other streams goes on in those that it had, and begins in
// the others.
func TestMultiplexOfAnotherSetOfStreams(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(multiplexedSite, origin.addr))
	keeper := s.multiplexed("a=/a&b=/b&c=/c")
	keeper.expectAll("a/open {}", "b/open {}", "c/open {}")
	c := s.multiplexed("a=/a&b=/b")
	c.expectAll("a/open {}", "b/open {}")
	origin.send(numbered(1, 1))
	c.expectAll("a/message event 1", "b/message event 1")
	first := c.last
	c.cancel()
	origin.send(numbered(2, 2))
	keeper.expectAll("a/message event 1", "b/message event 1", "c/message event 1", "a/message event 2", "b/message event 2", "c/message event 2")

	c = s.multiplexed("b=/b&c=/c", "Last-Event-ID", first)
	c.expectAll("b/open {}", "b/message event 2", "c/open {}")
	origin.send(numbered(3, 3))
	c.expectAll("b/message event 3", "c/message event 3")
	if c.last != "b:3,c:3" {
		t.Errorf("the id is %q, want one of the streams that it has", c.last)
	}
	second := c.last
	c.cancel()
	origin.send(numbered(4, 4))
	keeper.expectAll("a/message event 3", "b/message event 3", "c/message event 3", "a/message event 4", "b/message event 4", "c/message event 4")

	c = s.multiplexed("a=/a&b=/b&c=/c", "Last-Event-ID", second)
	c.expectAll("a/open {}", "b/open {}", "b/message event 4", "c/open {}", "c/message event 4")
	c.cancel()

	// The same path under another name is another stream.
	c = s.multiplexed("x=/b", "Last-Event-ID", second)
	c.expectAll("x/open {}")
}
