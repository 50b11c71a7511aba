package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// A site is what people have: an app and a directory of PHP pages. The line,
// if any, stands in the block of each.
type site struct {
	node   *origin
	root   string // of the PHP pages
	socket string // of php-fpm
	phpLog string // what events.php says of its streams
}

func newSite(t *testing.T) *site {
	t.Helper()
	root, err := filepath.Abs("origins/php")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{node: node(t), root: root, phpLog: filepath.Join(t.TempDir(), "streams")}
	s.socket = phpFPM(t, 4, map[string]string{
		"STREAM_LOG": s.phpLog,
		"EPOCH_MS":   fmt.Sprint(timeline.Epoch.UnixMilli()),
	})
	return s
}

func (s *site) run(t *testing.T, line string) *caddy {
	t.Helper()
	return runCaddy(t, "", fmt.Sprintf(`HTTP, HTTPS {
	handle_path /php/* {
		root %s
		%s
		php_fastcgi unix/%s
		file_server
	}
	handle {
		%s
		reverse_proxy %s
	}
}`, s.root, line, s.socket, line, s.node.addr))
}

// An answer is all that a client can see of one.
type answer struct {
	Status  string
	Length  int64
	Header  http.Header
	Trailer http.Header
	Body    string
}

// A query is one request of the list that both sites are asked.
type query struct {
	name, method, path string
	header             map[string]string
	body               string
}

// ask sends the request under a host name that is the same for all sites, for
// the origins echo it.
func (q query) ask(t *testing.T, client *http.Client, base string) answer {
	t.Helper()
	var body io.Reader
	if q.body != "" {
		body = strings.NewReader(q.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), q.method, base+q.path, body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(base, "http:") {
		req.Host = "app.test"
	}
	for name, value := range q.header {
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Header.Del("Date")
	return answer{resp.Status, resp.ContentLength, resp.Header, resp.Trailer, string(content)}
}

func queries() []query {
	type h = map[string]string
	stream := h{"Accept": "text/event-stream"}
	form := h{"Content-Type": "application/x-www-form-urlencoded", "Cookie": "session=abc; theme=dark"}
	list := []query{
		{"a page", "GET", "/", nil, ""},
		{"a page that has not changed", "GET", "/", h{"If-None-Match": `"v1"`}, ""},
		{"what the app sees", "GET", "/echo?a=1&b=%20x", h{"Cookie": "session=abc", "Accept-Language": "eo"}, ""},
		{"forged forwarding headers", "GET", "/echo", h{"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}, ""},
		{"a form", "POST", "/echo", form, "a=1&b=2"},
		{"JSON", "PUT", "/echo", h{"Content-Type": "application/json"}, `{"a":1}`},
		{"a large upload", "POST", "/echo", nil, strings.Repeat("0123456789abcdef", 1<<18)},
		{"an upload that waits", "POST", "/echo", h{"Expect": "100-continue"}, "continued"},
		{"a GET with a body", "GET", "/echo", nil, "body"},
		{"DELETE", "DELETE", "/echo", h{"Authorization": "Bearer t"}, ""},
		{"a preflight", "OPTIONS", "/echo", h{"Origin": "https://other.test", "Access-Control-Request-Method": "GET"}, ""},
		{"a large download", "GET", "/big", nil, ""},
		{"a whole file", "GET", "/file", nil, ""},
		{"a range", "GET", "/file", h{"Range": "bytes=10-15"}, ""},
		{"HEAD", "HEAD", "/file", nil, ""},
		{"HEAD of the stream", "HEAD", "/events", stream, ""},
		{"a compressed answer", "GET", "/compressed", h{"Accept-Encoding": "gzip"}, ""},
		{"cookies and a redirect", "GET", "/login", nil, ""},
		{"nothing", "GET", "/nothing", nil, ""},
		{"unauthorized", "GET", "/private", nil, ""},
		{"an error", "GET", "/broken", nil, ""},
		{"not found", "GET", "/missing", nil, ""},
		{"trailers", "GET", "/trailers", nil, ""},
		{"a stream of one's own", "POST", "/events", stream, "so it goes"},

		{"JSON, asked for as a stream", "GET", "/echo?x=1", stream, ""},
		{"JSON, asked for as a stream again", "GET", "/echo?x=1", stream, ""},
		{"a page, asked for as a stream", "GET", "/", stream, ""},
		{"a large download, asked for as a stream", "GET", "/big", stream, ""},
		{"nothing, asked for as a stream", "GET", "/nothing", stream, ""},
		{"a redirect, asked for as a stream", "GET", "/moved", stream, ""},
		{"cookies, asked for as a stream", "GET", "/login", stream, ""},
		{"unauthorized, asked for as a stream", "GET", "/private", stream, ""},
		{"not found, asked for as a stream", "GET", "/missing", stream, ""},

		{"PHP: a page", "GET", "/php/?a=1", nil, ""},
		{"PHP: a page by name", "GET", "/php/index.php/path/info?a[]=1&a[]=2", h{"Cookie": "session=abc"}, ""},
		{"PHP: a form", "POST", "/php/index.php", form, "a=1&b=2"},
		{"PHP: a status", "PUT", "/php/index.php", nil, "body"},
		{"PHP: HEAD", "HEAD", "/php/index.php", nil, ""},
		{"PHP: a static file", "GET", "/php/style.css", nil, ""},
		{"PHP: a range of a static file", "GET", "/php/style.css", h{"Range": "bytes=2-6"}, ""},
		{"PHP: a route that index.php answers", "GET", "/php/no/such/page", nil, ""},
		{"PHP: a page, asked for as a stream", "GET", "/php/index.php", stream, ""},
		{"PHP: a static file, asked for as a stream", "GET", "/php/style.css", stream, ""},
	}
	return list
}

// The line in a site must not change what the site does.
func TestWrappedSiteAnswersAsBefore(t *testing.T) {
	s := newSite(t)
	before, after := s.run(t, ""), s.run(t, "sse_fanout")
	for _, protocol := range []string{"h1", "h2"} {
		client := httpClient(t, protocol)
		url := func(c *caddy) string {
			if protocol == "h2" {
				return c.https
			}
			return c.http
		}
		for _, q := range queries() {
			t.Run(protocol+"/"+q.name, func(t *testing.T) {
				want, got := q.ask(t, client, url(before)), q.ask(t, client, url(after))
				if protocol == "h2" {
					// Here the host name has to be that of the certificate, and its port tells the sites apart.
					got = got.as(after, before)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("got\n%s\nwant, as without the line,\n%s", got, want)
				}
			})
		}
	}
}

// as tells the answer of one site in the words of another.
func (a answer) as(from, to *caddy) answer {
	port := func(c *caddy) string { return c.https[strings.LastIndexByte(c.https, ':')+1:] }
	a.Body = strings.ReplaceAll(a.Body, port(from), port(to))
	a.Header = a.Header.Clone()
	for _, values := range a.Header {
		for i := range values {
			values[i] = strings.ReplaceAll(values[i], port(from), port(to))
		}
	}
	return a
}

func (a answer) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s, %d bytes\n", a.Status, a.Length)
	_ = a.Header.Write(&b)
	_ = a.Trailer.Write(&b)
	if len(a.Body) > 2000 {
		fmt.Fprintf(&b, "%s... (%d bytes)", a.Body[:2000], len(a.Body))
	} else {
		b.WriteString(a.Body)
	}
	return b.String()
}

func TestWrappedSiteKeepsItsWebSocket(t *testing.T) {
	s := newSite(t)
	caddy := s.run(t, "sse_fanout")
	conn, _, _, err := ws.Dial(t.Context(), strings.Replace(caddy.http, "http", "ws", 1)+"/events")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{"hello", "", "again"} {
		if err := wsutil.WriteClientText(conn, []byte(text)); err != nil {
			t.Fatal(err)
		}
		echo, err := wsutil.ReadServerText(conn)
		if err != nil || string(echo) != text {
			t.Fatalf("got %q, %v; want %q", echo, err, text)
		}
	}
}

// Streams that could be somebody's own stay so, and all others are one.
func TestWrappedSiteSharesOnlyPublicStreams(t *testing.T) {
	s := newSite(t)
	caddy := s.run(t, "sse_fanout {\n\t\tlinger 1s\n\t}")
	client := httpClient(t, "h1")

	var nodeStreams struct {
		Now, Total              int
		Cookies, Authorizations []string
	}
	askNode := func() error {
		resp, err := http.Get("http://" + s.node.addr + "/stats")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return json.NewDecoder(resp.Body).Decode(&nodeStreams)
	}
	phpStreams := func() (opened, closed []string) {
		log, _ := os.ReadFile(s.phpLog)
		for line := range strings.Lines(string(log)) {
			if line = strings.TrimSpace(line); line == "close" {
				closed = append(closed, line)
			} else {
				opened = append(opened, line)
			}
		}
		return opened, closed
	}

	const clients, events = 20, 20
	await := func(crowds map[*crowd]int) {
		t.Helper()
		for crowd, n := range crowds {
			crowd.await(t, n, 30*time.Second)
		}
	}
	app, pages := caddy.http+"/events", caddy.http+"/php/events.php"
	shared := map[*crowd]int{
		join(t, client, app, clients, events):   clients,
		join(t, client, pages, clients, events): clients,
	}
	await(shared)
	own := map[*crowd]int{
		join(t, client, app, 1, events, "Cookie", "session=abc"):        1,
		join(t, client, app, 1, events, "Authorization", "Bearer mine"): 1,
		join(t, client, pages, 1, events, "Cookie", "session=abc"):      1,
	}
	await(own)

	if err := askNode(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(nodeStreams.Cookies)
	slices.Sort(nodeStreams.Authorizations)
	if nodeStreams.Now != 3 || nodeStreams.Total != 3 ||
		!slices.Equal(nodeStreams.Cookies, []string{"", "", "session=abc"}) ||
		!slices.Equal(nodeStreams.Authorizations, []string{"", "", "Bearer mine"}) {
		t.Errorf("the app has the streams %+v; want one without credentials and one for each client with them", nodeStreams)
	}
	opened, closed := phpStreams()
	if want := []string{"open cookie=", "open cookie=session=abc"}; !slices.Equal(opened, want) || len(closed) > 0 {
		t.Errorf("PHP has the streams %q, %d of them closed; want %q", opened, len(closed), want)
	}
	// With a stream for each client, no worker would be left for this.
	if page := (query{method: "GET", path: "/php/"}).ask(t, client, caddy.http); page.Status != "200 OK" {
		t.Errorf("beside the streams, a page is answered %s", page.Status)
	}

	for crowd := range shared {
		crowd.leave()
	}
	for crowd := range own {
		crowd.leave()
	}
	eventually(t, 8*time.Second, func() error {
		if err := askNode(); err != nil {
			return err
		}
		if _, closed := phpStreams(); nodeStreams.Now != 0 || len(closed) != 2 {
			return fmt.Errorf("%d streams of the app are open, %d of 2 of PHP closed", nodeStreams.Now, len(closed))
		}
		return nil
	})
}
