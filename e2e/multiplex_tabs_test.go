package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tabBrowsers are the browsers of these tests, with the names of their binaries.
var tabBrowsers = map[string][]string{
	"chrome":  {"chromium", "chromium", "chromium-browser", "google-chrome"},
	"firefox": {"firefox-esr", "firefox-esr", "firefox"},
}

// pagesDir is the directory of the pages.
func pagesDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("testdata/browser")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// localhost is the address of a site that browsers take for secure, so that it has locks.
func (c *caddy) localhost() string { return "http://localhost" + c.http[len("http://127.0.0.1"):] }

var multiplexedStreams = regexp.MustCompile(`caddy_sse_fanout_multiplex_shared_streams (\d+)`)

// awaitStreams waits until the connections of sse_multiplex have so many shared streams.
func (c *caddy) awaitStreams(t *testing.T, want int) {
	t.Helper()
	c.awaitMetric(t, multiplexedStreams, want)
}

// tabbedSite is a site with pages and events, and what else is to be there.
func tabbedSite(t *testing.T, origin *origin, more string) string {
	return fmt.Sprintf(`HTTP {
	%s
	handle /events {
		sse_fanout %s
	}
	handle {
		root %s
		file_server
	}
}`, more, origin.addr, pagesDir(t))
}

const withMultiplex = `handle /streams* {
		sse_multiplex
	}`

func names(prefix string, n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = prefix + strconv.Itoa(i)
	}
	return strings.Join(all, ",")
}

// What does not fit into one connection has another: by its number, by the limit of the
// handler, by the length of its URLs.
func TestTabsOfManyStreams(t *testing.T) {
	dir := installed(t, "testdata/clients")
	for browser, binary := range tabBrowsers {
		t.Run(browser, func(t *testing.T) {
			caddy := runCaddy(t, "", tabbedSite(t, node(t), withMultiplex+`
	handle /few* {
		sse_multiplex {
			max_streams 8
		}
	}`))
			b := startTabs(t, dir, browser, program(t, binary[0], binary[1:]...))
			page := caddy.localhost() + "/multiplex.html?names="
			b.open(1, page+names("a", 20))
			caddy.awaitConnections(t, 1)
			b.open(1, page+names("b", 20))
			b.awaitEvent("40 streams", now()+10, 0, 1)
			caddy.awaitConnections(t, 2)
			caddy.awaitStreams(t, 40)
			b.do(map[string]any{"tab": 1, "close": true})
			b.awaitEvent("20 streams", now()+10, 0)
			caddy.awaitConnections(t, 1)
			b.do(map[string]any{"tab": 0, "close": true})
			caddy.awaitConnections(t, 0)

			b.open(1, page+names("c", 20)+"&module=/few/client.js")
			b.awaitEvent("8 streams a connection", now()+10, 2)
			caddy.awaitConnections(t, 3)
			caddy.awaitStreams(t, 20)
			b.do(map[string]any{"tab": 2, "close": true})
			caddy.awaitConnections(t, 0)

			b.open(1, page+names(strings.Repeat("d", 400), 20))
			b.awaitEvent("long URLs", now()+10, 3)
			caddy.awaitConnections(t, 3)
			caddy.awaitStreams(t, 20)
		})
	}
}

// Whatever becomes of a tab or of the worker, the others miss nothing, and the connection is
// one.
func TestTabsThatFreezeOrDie(t *testing.T) {
	dir := installed(t, "testdata/clients")
	binary := tabBrowsers["chrome"]
	for _, means := range []string{"worker", "lock"} {
		t.Run("a "+means, func(t *testing.T) {
			caddy := runCaddy(t, "", tabbedSite(t, node(t), withMultiplex))
			b := startTabs(t, dir, "chrome", program(t, binary[0], binary[1:]...))
			page := caddy.localhost() + "/multiplex.html?names="
			if means == "lock" {
				page = caddy.localhost() + "/multiplex.html?worker=off&names="
			}
			b.open(1, page+"a,b,c,x")
			b.open(2, page+"a,b,c")
			b.open(1, page+"a,b,c,y")
			b.awaitEvent("opened", now()+10, 0, 1, 2, 3)
			caddy.awaitConnections(t, 1)

			b.do(map[string]any{"tab": 0, "freeze": true})
			caddy.awaitStreams(t, 4)
			b.awaitEvent("a tab is frozen", now()+10, 1, 2, 3)
			caddy.awaitConnections(t, 1)
			b.do(map[string]any{"tab": 0, "freeze": false})
			b.awaitEvent("it is not frozen any more", now()+10, 0, 1, 2, 3)
			caddy.awaitConnections(t, 1)

			if means == "worker" {
				var killed int
				if err := b.ask(map[string]any{"killWorkers": true}, &killed); err != nil || killed != 1 {
					t.Fatalf("killing the worker: %d, %v", killed, err)
				}
				b.awaitEvent("the worker has died", now()+10, 0, 1, 2, 3)
				caddy.awaitConnections(t, 1)
			}

			b.do(map[string]any{"tab": 1, "crash": true})
			b.awaitEvent("a tab has crashed", now()+10, 0, 2, 3)
			b.do(map[string]any{"tab": 3, "crash": true})
			caddy.awaitStreams(t, 4)
			b.awaitEvent("another tab has crashed", now()+10, 0, 2)
			caddy.awaitConnections(t, 1)
		})
	}
}

// Without TLS there are no locks. A worker serves all tabs; without one, each tab has a
// connection.
func TestTabsWithoutLocks(t *testing.T) {
	dir := installed(t, "testdata/clients")
	for browser, binary := range tabBrowsers {
		t.Run(browser, func(t *testing.T) {
			caddy := runCaddy(t, "", tabbedSite(t, node(t), withMultiplex))
			b := startTabs(t, dir, browser, program(t, binary[0], binary[1:]...))
			page := "http://plain.test" + caddy.http[len("http://127.0.0.1"):] + "/multiplex.html"
			b.open(3, page)
			b.awaitEvent("a worker", now()+10, 0, 1, 2)
			caddy.awaitConnections(t, 1)
			var locks bool
			if err := b.ask(map[string]any{"tab": 0, "evaluate": "'locks' in navigator"}, &locks); err != nil || locks {
				t.Errorf("the page has locks: %t, %v", locks, err)
			}
			for tab := range 3 {
				b.do(map[string]any{"tab": tab, "close": true})
			}
			caddy.awaitConnections(t, 0)
			b.open(3, page+"?worker=off")
			b.awaitEvent("no worker", now()+10, 3, 4, 5)
			caddy.awaitConnections(t, 3)
		})
	}
}

// Where the server has no sse_multiplex, or none any more, each instance has a connection of
// its own, and misses nothing.
func TestClientFallsBackToNative(t *testing.T) {
	dir := installed(t, "testdata/clients")
	const (
		brief  = "handle /streams* {\n\tsse_multiplex {\n\t\tstream_close_delay 100ms\n\t}\n}\n"
		module = "handle /streams/client.js {\n\tsse_multiplex\n}\n"
	)
	for browser, binary := range tabBrowsers {
		t.Run(browser, func(t *testing.T) {
			origin := node(t)
			caddy := runCaddy(t, "", tabbedSite(t, origin, brief))
			b := startTabs(t, dir, browser, program(t, binary[0], binary[1:]...))
			page := caddy.localhost() + "/multiplex.html"
			b.open(1, page+"?from="+url.QueryEscape(fmt.Sprintf("&last_event_id=%d", now()-20))) // which is not where it goes on
			b.awaitEvent("opened", now()+10, 0)
			caddy.awaitConnections(t, 1)
			if err := caddy.load(t, "", tabbedSite(t, origin, module)); err != nil {
				t.Fatal(err)
			}
			caddy.awaitConnections(t, 0)
			b.awaitEvent("sse_multiplex was removed", now()+10, 0)
			b.do(map[string]any{"tab": 0, "close": true})

			for i, answer := range []string{"respond 404", "respond 500", "respond 403", "respond 204", "respond \"a page\"", "redir * /elsewhere"} {
				if err := caddy.load(t, "", tabbedSite(t, origin, module+"handle /streams/ {\n\t"+answer+"\n}")); err != nil {
					t.Fatal(err)
				}
				b.open(1, page)
				b.awaitEvent(answer, now()+10, 1+i)
				caddy.awaitConnections(t, 0)
				b.do(map[string]any{"tab": 1 + i, "close": true})
			}
		})
	}
}

// withCredentials decides for each instance whether the cookies of another site are sent, also
// over the shared connection. The module may be of that site.
func TestClientSendsCredentials(t *testing.T) {
	dir := installed(t, "testdata/clients")
	echo := inGo(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		_, _ = io.WriteString(w, "data: "+r.Header.Get("Cookie")+"\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	pages := inGo(t, http.FileServer(http.Dir(pagesDir(t))))
	_, port, _ := strings.Cut(pages.addr, ":")
	for browser, binary := range tabBrowsers {
		t.Run(browser, func(t *testing.T) {
			caddy := runCaddy(t, "", fmt.Sprintf(`HTTP {
	handle /streams* {
		sse_multiplex {
			cors_origins http://localhost:%s
		}
	}
	handle {
		reverse_proxy %s
	}
}`, port, echo.addr))
			b := startTabs(t, dir, browser, program(t, binary[0], binary[1:]...))
			b.open(1, "http://localhost:"+port+"/credentials.html?of="+caddy.localhost())
			var got []string
			eventually(t, 10*time.Second, func() error {
				return b.ask(map[string]any{"tab": 0, "evaluate": "seen()"}, &got)
			})
			if len(got) != 2 || got[0] != "" || got[1] != "of=user" {
				t.Errorf("the cookies are %q, want none without withCredentials", got)
			}
			caddy.awaitConnections(t, 2)
		})
	}
}
