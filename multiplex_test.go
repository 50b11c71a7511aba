package ssefanout

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A muxClient is a connection of sse_multiplex through a real Caddy.
type muxClient struct {
	t      *testing.T
	resp   *http.Response
	cancel context.CancelFunc
	blocks chan muxEvent
	last   string   // the id in force
	retry  []string // reconnection times; complete once blocks is closed
}

type muxEvent struct{ id, typ, data string }

func (e muxEvent) String() string { return fmt.Sprintf("%s %s [%s]", e.typ, e.data, e.id) }

func (s *liveSite) multiplexed(query string, header ...string) *muxClient {
	s.t.Helper()
	return s.multiplexedOver(s.client, s.url, query, header...)
}

func (s *liveSite) multiplexedOver(client *http.Client, url, query string, header ...string) *muxClient {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/streams?"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	asBrowser(r)
	addHeader(r, header)
	resp, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	c := &muxClient{t: s.t, resp: resp, cancel: cancel, blocks: make(chan muxEvent, 1000)}
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("got %s: %s", resp.Status, body)
	}
	go c.run()
	return c
}

func (c *muxClient) run() {
	defer close(c.blocks)
	var e muxEvent
	var id string
	scanner := bufio.NewScanner(c.resp.Body)
	scanner.Buffer(nil, 32<<20)
	for scanner.Scan() {
		line := scanner.Text()
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			if e.typ != "" {
				e.id = id
				c.blocks <- e
			}
			e = muxEvent{}
		case name == "id" || name == "id:":
			id = value
		case name == "event":
			e.typ = value
		case name == "retry":
			c.retry = append(c.retry, value)
		case name == "data":
			e.data += value
		}
	}
}

// next returns the next event, of the types that begin with one of the prefixes if there
// are any.
func (c *muxClient) next(prefixes ...string) muxEvent {
	c.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-c.blocks:
			if !ok {
				c.t.Fatal("the connection has ended")
			}
			c.last = e.id
			if len(prefixes) == 0 {
				return e
			}
			for _, prefix := range prefixes {
				if strings.HasPrefix(e.typ, prefix) {
					return e
				}
			}
		case <-timeout:
			c.t.Fatalf("no event of %q", prefixes)
		}
	}
}

// rest returns what comes until the connection ends.
func (c *muxClient) rest() (events []muxEvent) {
	c.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-c.blocks:
			if !ok {
				return events
			}
			c.last = e.id
			events = append(events, e)
		case <-timeout:
			c.t.Fatal("the connection has not ended")
		}
	}
}

// expectAll checks that these events come, in any order of the streams.
func (c *muxClient) expectAll(want ...string) {
	c.t.Helper()
	missing := make(map[string]int)
	for _, w := range want {
		missing[w]++
	}
	for range want {
		e := c.next()
		got := e.typ + " " + e.data
		if missing[got] == 0 {
			c.t.Errorf("got %s", got)
		}
		missing[got]--
	}
}

// Streams that are shared, private and refused come over one connection, each event under
// its alias, and each id has the positions of all.
func TestMultiplexBringsStreamsOfAllKinds(t *testing.T) {
	prices, chat := newLiveOrigin(t), newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /secret {
		respond 403
	}
	handle /gone {
		respond 204
	}
	handle /page {
		respond "a page"
	}
	handle /events/* {
		sse_fanout %s
	}
	handle /chat/* {
		reverse_proxy %s
	}`, prices.addr, chat.addr))
	c := s.multiplexed("secret=/secret&gone=/gone&again=/streams%3Fa%3D/x&page=/page&nothing=/nothing", "Origin", s.url)
	c.expectAll(
		`secret/error {"status":403}`, `gone/error {"status":204}`, `again/error {"status":400}`,
		`page/error {"status":200}`, `nothing/error {"status":200}`)

	a := s.multiplexed("p=/events/prices&q=/events/prices%3Fall&chat=/chat/7")
	a.expectAll(`p/open {}`, `q/open {}`, `chat/open {}`)
	if n := prices.open(); n != 2 {
		t.Errorf("the origin has %d connections, want one for each topic", n)
	}
	prices.send("id: 17\ndata: one\n\n")
	a.expectAll(`p/message one`, `q/message one`)
	chat.send("id: a b,c:d%~\nevent: said\ndata: hello\ndata: you\n\n")
	e := a.next()
	if e.typ != "chat/said" || e.data != "helloyou" || e.id != "p:17,q:17,chat:a%20b%2Cc%3Ad%25%7E" {
		t.Errorf("got %v", e)
	}
	for _, typ := range []string{"open", "gap", "end", "error", "~x"} {
		prices.send("event: " + typ + "\ndata: x\n\n")
		a.expectAll("p/~"+typ+" x", "q/~"+typ+" x")
	}
	if e := a.last; e != "p:17,q:17,chat:a%20b%2Cc%3Ad%25%7E" {
		t.Errorf("the id is %q", e)
	}

	// Another connection shares the topics, with another set of streams, and goes on.
	prices.send("id: 18\ndata: two\n\n")
	a.expectAll("p/message two", "q/message two")
	a.cancel()
	prices.send("id: 19\ndata: three\n\n")
	b := s.multiplexed("p=/events/prices&more=/events/other", "Last-Event-ID", a.last)
	b.expectAll(`p/open {}`, `p/message three`, `more/open {}`)
}

// A request for a stream sees what the client's own request would, and nothing that the site
// has added in front of sse_multiplex, nor what other streams were asked with.
func TestMultiplexAsksWithTheClientsOwnHeader(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	@streams path /streams*
	request_header @streams Authorization "Bearer internal"
	request_header @streams X-Role admin
	request_header @streams -X-Removed
	vars @streams tenant internal
	handle /streams* {
		sse_multiplex
	}
	handle {
		reverse_proxy %s {
			header_up X-Tenant {http.vars.tenant}
			header_up X-Client {client_ip}
		}
	}`, origin.addr))
	c := s.multiplexed("a=/events/1%3Fx%3D%252F", "Cookie", "session=1", "X-Own", "yes", "Range", "bytes=0-",
		"Connection", "close, X-Hop", "X-Hop", "1", "Last-Event-ID", "a:7,b:secret", "Accept-Language", "de")
	c.next("a/open")
	r := origin.asked()[0]
	for name, want := range map[string]string{
		"Cookie": "session=1", "X-Own": "yes", "Authorization": "", "X-Role": "", "X-Removed": "", "X-Tenant": "",
		"X-Client": "127.0.0.1", "Last-Event-Id": "7", "Range": "", "X-Hop": "", "Accept": "text/event-stream",
		"Accept-Encoding": "identity", "Cdn-Loop": "caddy-sse-multiplex", "Accept-Language": "de", "X-Forwarded-For": "127.0.0.1",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if r.RequestURI != "/events/1?x=%2F" || r.Host != strings.TrimPrefix(s.url, "http://") || r.Method != http.MethodGet {
		t.Errorf("the origin was asked for %s %s of %s", r.Method, r.RequestURI, r.Host)
	}
}

// What a client names in Connection hides nothing from the site.
func TestMultiplexShowsTheSiteWhatConnectionNames(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	@external header X-External *
	respond @external 403
	handle /tenants/* {
		sse_fanout %[1]s {
			vary X-Tenant
		}
	}
	reverse_proxy %[1]s`, origin.addr))
	s.multiplexed("a=/events", "Connection", "x-external", "X-External", "1").expectAll(`a/error {"status":403}`)
	s.multiplexed("a=/tenants/1", "Connection", "X-Tenant", "X-Tenant", "blue").expectAll("a/open {}")
	if asked := origin.asked(); len(asked) != 1 || asked[0].Header.Get("X-Tenant") != "blue" {
		t.Errorf("the origin was asked with %v", asked)
	}
}

// Each stream passes the access control of its own path, and that of no other.
func TestMultiplexPassesTheFrontOfEachStream(t *testing.T) {
	origin := newLiveOrigin(t)
	const hash = "$2a$04$jiT0buc7QQXYuTycoiT7/OEAmwGuTFjfHzYtbcW3Y/Q/BLQz8qGLq" // "hiccup"
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /members/* {
		basic_auth {
			alice %[1]s
		}
		sse_fanout %[2]s {
			vary {http.auth.user.id}
		}
	}
	handle /intranet/* {
		@abroad not remote_ip 192.0.2.0/24
		respond @abroad 403
		sse_fanout %[2]s
	}
	handle {
		sse_fanout %[2]s
	}`, hash, origin.addr))
	const query = "m=/members/1&i=/intranet/1&p=/public"
	c := s.multiplexed(query)
	c.expectAll(`m/error {"status":401}`, `i/error {"status":403}`, `p/open {}`)
	origin.send("data: x\n\n")
	c.expectAll("p/message x")
	a := s.multiplexed(query, "Authorization", "Basic YWxpY2U6aGljY3Vw")
	a.expectAll(`m/open {}`, `i/error {"status":403}`, `p/open {}`)
	origin.send("data: y\n\n")
	c.expectAll("p/message y")
	a.expectAll("p/message y", "m/message y")
}

// A page of another site gets what the handler and the answer to each stream let it read, and
// nothing else: not even what status it was refused with.
func TestMultiplexJudgesOrigins(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex {
			cors_origins https://app.example
		}
	}
	handle /own/* {
		sse_fanout %[1]s
	}
	handle /app/* {
		sse_fanout %[1]s {
			cors_origins https://app.example
		}
	}
	handle /other/* {
		sse_fanout %[1]s {
			cors_origins https://other.example
		}
	}
	handle /any/* {
		sse_fanout %[1]s {
			cors_origins *
		}
	}
	handle /missing {
		respond 404
	}
	handle /page {
		respond "a page"
	}
	handle /told {
		header Access-Control-Allow-Origin https://app.example
		respond 404
	}`, origin.addr))
	const query = "own=/own/1&app=/app/1&other=/other/1&any=/any/1&missing=/missing&page=/page&told=/told"
	c := s.multiplexed(query, "Origin", "https://app.example")
	if got := c.resp.Header.Get("Access-Control-Allow-Origin"); got != "https://app.example" {
		t.Errorf("the answer allows %q", got)
	}
	c.expectAll(`own/error {"status":403}`, `app/open {}`, `other/error {"status":403}`, `any/open {}`,
		`missing/error {"status":403}`, `page/error {"status":403}`, `told/error {"status":404}`)
	c = s.multiplexed(query, "Origin", "https://app.example", "Cookie", "session=1")
	c.expectAll(`own/error {"status":403}`, `app/open {}`, `other/error {"status":403}`, `any/error {"status":403}`,
		`missing/error {"status":403}`, `page/error {"status":403}`, `told/error {"status":403}`)
	c = s.multiplexed("own=/own/1&missing=/missing", "Origin", s.url)
	c.expectAll(`own/open {}`, `missing/error {"status":404}`)

	secure := "https" + strings.TrimPrefix(s.url, "http")
	c = s.multiplexed("own=/own/1", "Origin", secure, "X-Forwarded-Proto", "https")
	c.expectAll(`own/open {}`)
	if resp, _ := s.request(http.MethodGet, "/streams?own=/own/1", "Origin", s.url, "X-Forwarded-Proto", "https"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a page without TLS reads a site with it: got %s", resp.Status)
	}
	asked := len(origin.asked())
	for _, foreign := range []string{"https://evil.example", "null", "https://app.example.evil", "http://app.example", "%"} {
		resp, body := s.request(http.MethodGet, "/streams?x=/app/new", "Origin", foreign)
		if resp.StatusCode != http.StatusForbidden || resp.Header.Get("Access-Control-Allow-Origin") != "" || !strings.Contains(body, "cors_origins") {
			t.Errorf("%s: got %s and %q", foreign, resp.Status, body)
		}
	}
	if n := len(origin.asked()); n != asked {
		t.Errorf("the origin was asked %d times more", n-asked)
	}
}

func TestMultiplexAnswersBadInput(t *testing.T) {
	s := run(t, `
	handle /streams* {
		sse_multiplex {
			max_streams 2
		}
	}`)
	for query, want := range map[string]string{
		"":                       "names no stream",
		"a=/x&a=/y":              "given twice",
		"a=/x&b=/y&c=/z":         "more than 2 streams",
		"a=//evil.example/":      "no path of this site",
		"a=http://evil.example/": "no path of this site",
		"a=/a/../b":              "dot segment",
		"a=/x%23y":               "fragment",
		"a=/x%252Fy":             "encoded slash",
		"a b=/x":                 "letters, digits",
		"a=/x&lastEventId=" + strings.Repeat("a", 1025): "more than 1024 bytes",
	} {
		resp, body := s.request(http.MethodGet, "/streams?"+strings.ReplaceAll(query, " ", "%20"))
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, want) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("%.50s: got %s and %q, want one that says %q", query, resp.Status, body, want)
		}
	}
	if resp, _ := s.request(http.MethodPost, "/streams?a=/x"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %s", resp.Status)
	}
	if resp, _ := s.request(http.MethodHead, "/streams?a=/x"); resp.StatusCode != http.StatusOK {
		t.Errorf("HEAD: got %s", resp.Status)
	}
}

// A stream that leads back here is refused, in process and over the network.
func TestMultiplexDoesNotRecurse(t *testing.T) {
	s := newSite(t)
	s.load(fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle_path /loop/* {
		reverse_proxy 127.0.0.1:%d
	}
	`, s.http))
	c := s.multiplexed("a=/streams%3Fb=/x&b=/loop/streams%3Fc=/loop/streams%253Fd=/x&c=/loop/loop/streams%3Fc=/x")
	c.expectAll(`a/error {"status":400}`, `b/error {"status":400}`, `c/error {"status":400}`)
}

// A connection with n streams counts n, whether they are shared or pass one to one.
func TestMultiplexedStreamsCountForLimits(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /reject/* {
		sse_fanout %[1]s {
			max_subscribers off per_client_ip 2
			unavailable reject
		}
	}
	handle {
		sse_fanout {
			max_subscribers off per_client_ip 2
		}
		reverse_proxy %[1]s
	}`, origin.addr))
	c := s.multiplexed("a=/1&b=/2&c=/3&d=/4", "Cookie", "x=1") // it makes them pass
	opened, ended := 0, 0
	for range 4 {
		switch e := c.next(); {
		case strings.HasSuffix(e.typ, "/open"):
			opened++
		case strings.HasSuffix(e.typ, "/end"):
			ended++
		default:
			t.Errorf("got %v", e)
		}
	}
	if opened != 2 || ended != 2 {
		t.Errorf("%d streams have begun and %d are to wait, want 2 and 2", opened, ended)
	}
	c.cancel()
	c = s.multiplexed("a=/reject/1&b=/reject/2&c=/reject/3")
	opened = 0
	for range 3 {
		switch e := c.next(); {
		case strings.HasSuffix(e.typ, "/open"):
			opened++
		case !strings.HasSuffix(e.typ, "/error") || e.data != `{"status":503}`:
			t.Errorf("got %v", e)
		}
	}
	if opened != 2 {
		t.Errorf("%d streams have begun, want 2", opened)
	}
}

func TestMultiplexLimitsItsConnections(t *testing.T) {
	s := run(t, `
	handle /streams* {
		sse_multiplex {
			max_connections 2 per_client_ip 1
		}
	}`)
	c := s.multiplexed("a=/x")
	c.next()
	if _, body := s.request(http.MethodGet, "/streams?a=/x"); !strings.HasPrefix(body, "retry: ") {
		t.Errorf("a second connection of the address got %q", body)
	}
	c.cancel()
	for range 500 {
		if len(multiplexConns()) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.multiplexed("a=/x").next()
}

// A stream that ends is asked for again; the others go on.
func TestMultiplexAsksAgain(t *testing.T) {
	steady, brief := newLiveOrigin(t), newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /steady {
		sse_fanout %s
	}
	handle /brief {
		reverse_proxy %s
	}`, steady.addr, brief.addr))
	c := s.multiplexed("s=/steady&b=/brief")
	c.expectAll("s/open {}", "b/open {}")
	brief.send("retry: 1100\nid: 7\ndata: x\n\n")
	c.expectAll("b/message x")
	brief.CloseClientConnections()
	c.expectAll(`b/end {"retry":1100}`)
	steady.send("id: 1\ndata: y\n\n")
	c.expectAll("s/message y")
	c.expectAll("b/open {}")
	if got := brief.asked()[1].Header.Get("Last-Event-ID"); got != "7" {
		t.Errorf("it is asked for again after %q, want 7", got)
	}
	if c.last != "s:1,b:7" {
		t.Errorf("the id is %q", c.last)
	}
}

// What a client has missed comes from the history, be its position whole or a digest; and
// where nobody knows it, a gap is told.
func TestMultiplexResumes(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle {
		sse_fanout %s {
			gap_event missed
			catchup 1 200ms
		}
	}`, origin.addr))
	keeper := s.multiplexed("k=/e")
	keeper.expectAll("k/open {}")
	long := strings.Repeat("0", 200)
	for i := range 3 {
		origin.send(fmt.Sprintf("id: %s%d\ndata: %d\n\n", long, i, i))
		keeper.expectAll(fmt.Sprint("k/message ", i))
		if i == 0 && (len(keeper.last) > 20 || !strings.HasPrefix(keeper.last, "k:~")) {
			t.Errorf("the id is %q, want a digest", keeper.last)
		}
	}
	first := digestOf(long + "0")
	c := s.multiplexed("a=/e&b=/e&new=/e", "Last-Event-ID", "a:"+first+",b:"+first+",gone:1")
	c.expectAll("a/open {}", "b/open {}", "a/message 1", "a/message 2", "b/message 1", "b/message 2", "new/open {}")

	for _, lost := range []string{"a:~AAAAAAAAAAA", "17"} {
		c = s.multiplexed("a=/e", "Last-Event-ID", lost)
		c.expectAll("a/open {}", "a/gap {}", "a/missed ")
		origin.send("data: on\n\n")
		c.expectAll("a/message on")
	}
	c = s.multiplexed("a=/e", "Last-Event-ID", "a:unknown")
	c.expectAll("a/open {}", "a/gap {}", "a/missed ")
	c = s.multiplexed("a=/e&lastEventId=a:" + first)
	c.expectAll("a/open {}", "a/message 1")
}

// The ids of streams that are not shared stand whole in the id; without room for them, the
// stream ends, and harms no other.
func TestMultiplexEndsWhatDoesNotFit(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex {
			max_event_size 1KiB
		}
	}
	handle /shared {
		sse_fanout %[1]s
	}
	handle {
		reverse_proxy %[1]s
	}`, origin.addr))
	c := s.multiplexed("a=/a&s=/shared")
	c.expectAll("a/open {}", "s/open {}")
	origin.send("id: " + strings.Repeat("1", 900) + "\ndata: x\n\n")
	c.expectAll("a/message x", "s/message x")
	if len(c.last) > 1024 {
		t.Errorf("the id has %d bytes", len(c.last))
	}
	origin.send("id: " + strings.Repeat(" ", 2) + strings.Repeat("%", 340) + "\ndata: y\n\n")
	c.expectAll(`a/error {"status":431}`, "s/message y")

	c = s.multiplexed("b=/b&s=/shared")
	c.expectAll("b/open {}", "s/open {}")
	origin.send("data: " + strings.Repeat("z", 2000) + "\n\n")
	c.expectAll(`b/error {"status":413}`, "s/message "+strings.Repeat("z", 2000))
}

// A connection outlives a reload that leaves its handler as it was, and its streams those
// that leave theirs; a stream that the new configuration refuses is refused.
func TestMultiplexOutlivesReloads(t *testing.T) {
	origin := newLiveOrigin(t)
	s := newSite(t)
	config := func(other string) {
		s.load(fmt.Sprintf(`
		handle /streams* {
			sse_multiplex
		}
		handle /same {
			sse_fanout %s
		}
		handle /other {
			%s
		}`, origin.addr, other))
	}
	config(fmt.Sprintf("sse_fanout %s {\nname a\nstream_close_delay 10ms\ncatchup 1 200ms\n}", origin.addr))
	c := s.multiplexed("s=/same&o=/other")
	c.expectAll("s/open {}", "o/open {}")
	origin.send("id: 1\ndata: 1\n\n")
	c.expectAll("s/message 1", "o/message 1")
	config(fmt.Sprintf("sse_fanout %s {\nname b\nstream_close_delay 10ms\ncatchup 1 200ms\n}", origin.addr))
	c.next("o/end")
	c.expectAll("o/open {}")
	origin.send("id: 2\ndata: 2\n\n")
	for range 2 { // in any order
		if e := c.next("s/message", "o/message"); e.data != "2" {
			t.Errorf("got %v", e)
		}
	}
	config("respond 403")
	c.next("o/end")
	c.expectAll(`o/error {"status":403}`)
	origin.send("id: 3\ndata: 3\n\n")
	c.expectAll("s/message 3")
}

// A connection whose handler is gone ends, between two events, with a time to come back.
func TestMultiplexEndsWithItsHandler(t *testing.T) {
	origin := newLiveOrigin(t)
	s := newSite(t)
	config := func(delay string) {
		s.load(fmt.Sprintf(`
		handle /streams* {
			sse_multiplex {
				stream_close_delay %s
			}
		}
		handle {
			sse_fanout %s
		}`, delay, origin.addr))
	}
	config("10ms")
	c := s.multiplexed("s=/same")
	c.expectAll("s/open {}")
	config("20ms")
	for range c.blocks {
	}
	c = s.multiplexed("s=/same", "Last-Event-ID", c.last)
	c.expectAll("s/open {}")
}

func TestMultiplexEndsForAStreamTimeout(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /bounded {
		sse_fanout %[1]s {
			stream_timeout 100ms
		}
	}
	handle {
		sse_fanout %[1]s
	}`, origin.addr))
	c := s.multiplexed("a=/bounded&b=/unbounded")
	for e := range c.blocks {
		if !strings.HasSuffix(e.typ, "/open") {
			t.Errorf("got %v", e)
		}
	}
}

// A snapshot greets each client of each stream.
func TestMultiplexGreets(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex {
			heartbeat 50ms
		}
	}
	handle {
		sse_fanout %s {
			greeting snapshot
		}
	}`, origin.addr))
	c := s.multiplexed("a=/x")
	c.expectAll("a/open {}")
	origin.send("event: snapshot\ndata: all\n\ndata: change\n\n")
	c.expectAll("a/snapshot all", "a/message change")
	s.multiplexed("late=/x").expectAll("late/open {}", "late/snapshot all", "late/message change")
}

// digestOf returns the position that stands for an id.
func digestOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return "~" + base64.RawURLEncoding.EncodeToString(sum[:8])
}

// An administrator sees the connections and their streams, and ends one.
func TestAdminShowsConnections(t *testing.T) {
	origin := newLiveOrigin(t)
	admin := freePort(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex
	}
	handle /own {
		reverse_proxy %[1]s
	}
	handle /no {
		respond 403
	}
	handle {
		sse_fanout %[1]s
	}`, origin.addr), fmt.Sprintf("admin 127.0.0.1:%d", admin))
	c := s.multiplexed("a=/shared%3Fsecret&b=/own&c=/no")
	c.expectAll("a/open {}", "b/open {}", `c/error {"status":403}`)
	origin.send("id: 1\ndata: x\n\n")
	c.expectAll("a/message x", "b/message x")

	ask := func(method, path string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://127.0.0.1:%d/sse_fanout/connections%s", admin, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	_, text := ask(http.MethodGet, "")
	var all []struct {
		Number  uint64
		Streams []struct {
			Alias, State, Topic string
			Events              uint64
		}
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 || len(all[0].Streams) != 3 {
		t.Fatalf("got %s: %v", text, err)
	}
	got := fmt.Sprint(all[0].Streams)
	topic := all[0].Streams[0].Topic
	if want := fmt.Sprintf("[{a shared %s 1} {b private  1} {c over  0}]", topic); got != want || !strings.Contains(topic, "/shared ") {
		t.Errorf("got %s, want %s", got, want)
	}
	if strings.Contains(text, "secret") {
		t.Errorf("it tells a query: %s", text)
	}
	number := fmt.Sprintf("/%d", all[0].Number)
	for _, tc := range []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, number, 200},
		{http.MethodGet, "/x", 400},
		{http.MethodGet, "/99999", 404},
		{http.MethodGet, number + "/streams", 404},
		{http.MethodPost, "", 405},
		{http.MethodDelete, number, 204},
	} {
		if status, body := ask(tc.method, tc.path); status != tc.status {
			t.Errorf("%s %s: got %d and %s, want %d", tc.method, tc.path, status, body, tc.status)
		}
	}
	for range c.blocks {
	}
}

// The heartbeats of topics are not sent: one of the connection serves all its streams.
func TestMultiplexHasOneHeartbeat(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	handle /streams* {
		sse_multiplex {
			heartbeat 300ms
			direct off
		}
	}
	handle {
		sse_fanout %s {
			heartbeat 10ms
		}
	}`, origin.addr))
	c := s.multiplexed("a=/a&b=/b")
	c.expectAll("a/open {}", "b/open {}")
	before := counted.Heartbeats.Load()
	for counted.Heartbeats.Load() < before+20 {
		time.Sleep(time.Millisecond)
	}
	for counted.Multiplex.Heartbeats.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	// Two topics with a heartbeat each 10 ms, and not one for each look at them.
	if n := counted.Heartbeats.Load() - before; n > 2000 {
		t.Errorf("%d heartbeats of topics are counted", n)
	}
	origin.send("data: x\n\n")
	c.expectAll("a/message x", "b/message x")
}

// What Caddy itself puts around the answers of a site does not keep topics from being read
// without a goroutine for each stream.
func TestMultiplexSharesBehindCaddysOwnWriters(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, fmt.Sprintf(`
	log
	encode
	header X-Site yes
	handle_errors {
		respond "{err.status_code}"
	}
	handle /streams* {
		sse_multiplex
	}
	handle {
		sse_fanout
		reverse_proxy %s
	}`, origin.addr))
	c := s.multiplexed("a=/a&b=/b", "Accept-Encoding", "gzip")
	c.expectAll("a/open {}", "b/open {}")
	if shared, private := counted.Multiplex.Shared(), counted.Multiplex.Private(); shared != 2 || private != 0 {
		t.Errorf("%d streams are shared and %d private, want 2 and none", shared, private)
	}
	origin.send("data: x\n\n")
	c.expectAll("a/message x", "b/message x")
	c.cancel()
	for range 500 {
		if counted.Multiplex.Shared() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("streams are left behind")
}
