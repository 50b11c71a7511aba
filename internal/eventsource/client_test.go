package eventsource

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource/eventsourcetest"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

var errDone = errors.New("done")

// stream begins an event stream.
func stream(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	http.NewResponseController(w).Flush()
}

func send(w http.ResponseWriter, text string) {
	_, _ = io.WriteString(w, text)
	http.NewResponseController(w).Flush()
}

// collect makes a client's events a list of "id|type|data".
func collect(c *Client, limit int) *[]string {
	events := new([]string)
	c.Event = func(_ time.Time, e *sse.Event, id string) error {
		if e.HasData {
			*events = append(*events, id+"|"+string(e.Type)+"|"+string(e.Data))
		}
		if limit > 0 && len(*events) == limit {
			return errDone
		}
		return nil
	}
	return events
}

func clientOf(t *testing.T, address string) *Client {
	u, err := ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	transport := Connection{}.Transport()
	t.Cleanup(transport.CloseIdleConnections)
	return &Client{URL: u, Transport: transport}
}

func serve(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server
}

func TestEvents(t *testing.T) {
	for _, tc := range []struct {
		name   string
		chunks []string
		want   []string
	}{
		{"LF", []string{"id: 1\nevent: a\ndata: x\n\ndata: y\n\n"}, []string{"1|a|x", "1||y"}},
		{"CRLF, cut between CR and LF", []string{"data: x\r", "\n\r", "\ndata: y\r\n\r\n"}, []string{"||x", "||y"}},
		{"CR alone", []string{"id: 1\rdata: x\r\rdata: y\r\r"}, []string{"1||x", "1||y"}},
		{"a byte order mark", []string{"\xEF\xBB", "\xBFdata: x\n\n"}, []string{"||x"}},
		{"comments and unknown fields", []string{": hello\n\n:\nfoo: bar\ndata: x\n\n"}, []string{"||x"}},
		{"an id alone counts", []string{"id: 7\n\ndata: x\n\n"}, []string{"7||x"}},
		{"an empty id resets", []string{"id: 7\ndata: x\n\nid\ndata: y\n\n"}, []string{"7||x", "||y"}},
		{"half an event at the end is none", []string{"data: x\n\ndata: y\n"}, []string{"||x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &Client{URL: &url.URL{Scheme: "http", Host: "test"}, NoReconnect: true}
				c.Transport = eventsourcetest.Transport(func(w http.ResponseWriter, r *http.Request) {
					stream(w)
					for _, chunk := range tc.chunks {
						send(w, chunk)
						eventsourcetest.Wait(r, time.Second)
					}
				})
				events := collect(c, 0)
				if err := c.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(*events, tc.want) {
					t.Errorf("got %q, want %q", *events, tc.want)
				}
			})
		})
	}
}

func TestRequest(t *testing.T) {
	var got *http.Request
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.WriteHeader(http.StatusNoContent)
	})
	c := clientOf(t, server.URL+"/events?a=b")
	c.Header = http.Header{"Authorization": {"Bearer x"}, "Host": {"example.com"}}
	c.LastEventID = "7"
	if err := c.Run(t.Context()); !errors.Is(err, ErrStopped) {
		t.Fatalf("got %v, want ErrStopped", err)
	}
	for name, want := range map[string]string{
		"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-cache",
		"Last-Event-Id": "7", "Authorization": "Bearer x",
	} {
		if value := got.Header.Get(name); value != want {
			t.Errorf("%s: got %q, want %q", name, value, want)
		}
	}
	if got.Host != "example.com" || got.RequestURI != "/events?a=b" {
		t.Errorf("got host %q, URI %q", got.Host, got.RequestURI)
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		want   string
		kind   any
	}{
		{"404", func(w http.ResponseWriter) { http.Error(w, "no such\x1b[2J stream", 404) }, "404 Not Found: no such␛[2J stream", new(*StatusError)},
		{"503", func(w http.ResponseWriter) { w.WriteHeader(503) }, "503 Service Unavailable", new(*StatusError)},
		{"another 2xx", func(w http.ResponseWriter) { stream201(w) }, "201 Created", new(*StatusError)},
		{"a page", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<!doctype html><title>Log in &amp; on</title>")
		}, "not an event stream: Content-Type is text/html (Log in & on)", new(*TypeError)},
		{"no type", func(w http.ResponseWriter) { w.Header()["Content-Type"] = nil; w.WriteHeader(200) }, "not an event stream: the answer has no Content-Type", new(*TypeError)},
		{"a type that begins alike", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/event-streams")
		}, "not an event stream: Content-Type is text/event-streams", new(*TypeError)},
		{"an unreadable encoding", func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "br")
			stream(w)
		}, `the answer is encoded with "br", which cannot be read`, new(*TypeError)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			requests := 0
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				requests++
				tc.answer(w)
			})
			err := clientOf(t, server.URL).Run(t.Context())
			if err == nil || err.Error() != tc.want || !errors.As(err, tc.kind) {
				t.Errorf("got %T %q, want %q", err, err, tc.want)
			}
			if requests != 1 {
				t.Errorf("got %d requests, want one: it is final", requests)
			}
		})
	}
}

func stream201(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusCreated)
}

func TestTypeWithParameters(t *testing.T) {
	for contentType, want := range map[string]bool{
		"text/event-stream": true, "Text/Event-Stream ; charset=utf-8": true, "text/event-stream;": true,
		"": false, "text/plain": false, "text/event-stream,text/plain": false,
	} {
		if got := isEventStream(contentType); got != want {
			t.Errorf("%q: got %v, want %v", contentType, got, want)
		}
	}
}

// A page that never ends must not keep the client from saying that it is one.
func TestEndlessRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{URL: &url.URL{Scheme: "http", Host: "test"}}
		c.Transport = eventsourcetest.Transport(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			send(w, "sorry")
			<-r.Context().Done()
		})
		err := c.Run(t.Context())
		if err == nil || err.Error() != "500 Internal Server Error: sorry" {
			t.Errorf("got %v", err)
		}
	})
}

func TestRedirects(t *testing.T) {
	var paths []string
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.URL.Path+" "+r.Header.Get("Last-Event-Id")+" "+r.Header.Get("Accept"))
		if n, _ := strconv.Atoi(strings.Trim(r.URL.Path, "/")); n < 2 {
			http.Redirect(w, r, "/"+strconv.Itoa(n+1), http.StatusTemporaryRedirect)
			return
		}
		stream(w)
		send(w, "data: x\n\n")
	})
	c := clientOf(t, server.URL)
	c.LastEventID = "7"
	events := collect(c, 1)
	if err := c.Run(t.Context()); !errors.Is(err, errDone) {
		t.Fatal(err)
	}
	want := []string{"/ 7 text/event-stream", "/1 7 text/event-stream", "/2 7 text/event-stream"}
	if !slices.Equal(paths, want) || len(*events) != 1 {
		t.Errorf("got %q and %q", paths, *events)
	}

	loop := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) })
	err := clientOf(t, loop.URL).Run(t.Context())
	if err == nil || err.Error() != "more than 20 redirects" {
		t.Errorf("got %v", err)
	}
}

// A reconnect comes after the time that the server has named, says the last id,
// and goes to the URL that was asked for.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var requests []string
		c := &Client{URL: &url.URL{Scheme: "http", Host: "test"}}
		c.Transport = eventsourcetest.Transport(func(w http.ResponseWriter, r *http.Request) {
			requests = append(requests, fmt.Sprintf("%s after %s", r.Header.Get("Last-Event-Id"), time.Since(begun)))
			switch len(requests) {
			case 1:
				stream(w)
				send(w, "id: a\ndata: x\n\n")
			case 2:
				stream(w)
				send(w, "retry: 500\nid: b\n\n")
				panic(http.ErrAbortHandler)
			case 3, 4, 5:
				panic(http.ErrAbortHandler) // no answer at all
			case 6:
				stream(w)
				send(w, "retry: 99999999999999999999\n\ndata: y\nid: c")
			}
		})
		collect(c, 0)
		var whys []string
		c.Reconnecting = func(err error, wait time.Duration) error {
			whys = append(whys, fmt.Sprint(err))
			if wait > time.Hour {
				return errDone
			}
			return nil
		}
		if err := c.Run(t.Context()); !errors.Is(err, errDone) {
			t.Fatal(err)
		}
		want := []string{
			" after 0s", "a after 3s", // the default
			"b after 3.5s", "b after 4s", // its own
			"b after 5.5s", "b after 8s", // plus 1s and 2s, as nothing answers
		}
		if !slices.Equal(requests, want) {
			t.Errorf("got %q, want %q", requests, want)
		}
		if want := []string{"<nil>", "the connection broke: unexpected EOF", "unexpected EOF", "unexpected EOF", "unexpected EOF", "<nil>"}; !slices.Equal(whys, want) {
			t.Errorf("got %q, want %q", whys, want)
		}
	})
}

func TestLongestRetry(t *testing.T) {
	if wait := min(max(time.Duration(math.MaxInt64), shortestRetry), math.MaxInt64-longestBackoff) + longestBackoff; wait < 0 {
		t.Error("the time to wait overflows")
	}
}

// A server that ends each stream at once and names no time must not be asked in
// a tight loop.
func TestZeroRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests atomic.Int64
		c := &Client{URL: &url.URL{Scheme: "http", Host: "test"}}
		c.Transport = eventsourcetest.Transport(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			stream(w)
			send(w, "retry: 0\n\n")
		})
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errDone)
		defer cancel()
		if err := c.Run(ctx); !errors.Is(err, errDone) {
			t.Fatal(err)
		}
		if requests.Load() > 11 {
			t.Errorf("got %d requests within a second", requests.Load())
		}
	})
}

// Servers turn clients away by a stream that ends at once, with nothing but the
// time to come back. Whatever else ends is a stream that has ended.
func TestTurnedAway(t *testing.T) {
	const want = "the server turned this client away and asked it to come back in 12.35s: probably a limit is reached, or it is restarting"
	for _, tc := range []struct {
		body  []string
		after time.Duration
		want  string
	}{
		{[]string{"retry: 12345\n\n"}, 0, want},
		{[]string{"retry: 12345\r\n\r\n"}, 0, want},
		{[]string{"retry:", "12345\n", "\n"}, 0, want},
		{[]string{"retry: 12345\n\n"}, time.Second - 1, want},
		{[]string{"retry: 12345\n\n"}, time.Second, "<nil>"},
		{[]string{"retry: soon\n\n"}, 0, "<nil>"},
		{[]string{"retry: 12345\n"}, 0, "<nil>"},
		{[]string{""}, 0, "<nil>"},
		{[]string{": hello\nretry: 12345\n\n"}, 0, "<nil>"},
		{[]string{"retry: 12345\n: hello\n\n"}, 0, "<nil>"},
		{[]string{"retry: 12345\n\n", "data: x\n\n"}, 0, "<nil>"},
		{[]string{"retry: 12345\n\n" + strings.Repeat("\n", 64), "data: x\n\n"}, 0, "<nil>"},
	} {
		synctest.Test(t, func(t *testing.T) {
			requests := 0
			c := &Client{URL: &url.URL{Scheme: "http", Host: "test"}}
			c.Transport = eventsourcetest.Transport(func(w http.ResponseWriter, r *http.Request) {
				requests++
				stream(w)
				for _, text := range tc.body {
					send(w, text)
				}
				eventsourcetest.Wait(r, tc.after)
			})
			var why error
			c.Reconnecting = func(err error, wait time.Duration) error {
				why = err
				if requests == 2 {
					return errDone
				}
				return nil
			}
			if err := c.Run(t.Context()); !errors.Is(err, errDone) {
				t.Fatal(err)
			}
			c.NoReconnect = true
			if got := []string{fmt.Sprint(why), fmt.Sprint(c.Run(t.Context()))}; !slices.Equal(got, []string{tc.want, tc.want}) {
				t.Errorf("%q, %s: got %q, want %q twice", tc.body, tc.after, got, tc.want)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	err := clientOf(t, server.URL).Run(t.Context())
	if _, ok := errors.AsType[*ConnectError](err); !ok || strings.Contains(err.Error(), "Get ") {
		t.Errorf("got %T %v", err, err)
	}

	plain := serve(t, func(http.ResponseWriter, *http.Request) {})
	err = clientOf(t, strings.Replace(plain.URL, "http:", "https:", 1)).Run(t.Context())
	if err == nil || err.Error() != "the server speaks HTTP here, not HTTPS" {
		t.Errorf("got %v", err)
	}
}

func TestCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stream(w)
		send(w, "data: "+r.Proto+"\n\n")
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	err := clientOf(t, server.URL).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
	for want, connection := range map[string]Connection{
		"||HTTP/2.0": {Insecure: true},
		"||HTTP/1.1": {Insecure: true, HTTP1: true},
	} {
		c := clientOf(t, server.URL)
		transport := connection.Transport()
		defer transport.CloseIdleConnections()
		c.Transport = transport
		c.NoReconnect = true
		events := collect(c, 0)
		if err := c.Run(t.Context()); err != nil || !slices.Equal(*events, []string{want}) {
			t.Errorf("got %v, %q, want %q", err, *events, want)
		}
	}
}

// A huge event costs a bounded amount, and is told from a lost connection.
func TestHugeEvent(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		stream(w)
		send(w, "data: fine\n\ndata: ")
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 10_000)); err != nil {
				return
			}
		}
	})
	c := clientOf(t, server.URL)
	c.MaxEventSize = 1 << 20
	events := collect(c, 0)
	if err := c.Run(t.Context()); !errors.Is(err, sse.ErrEventTooLarge) || len(*events) != 1 {
		t.Errorf("got %v, %d events", err, len(*events))
	}
}

// Events come out of a compressed stream when they were flushed, not when a
// buffer is full.
func TestGzip(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		stream(w)
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "data: x\n\n")
		z.Flush()
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c := clientOf(t, server.URL)
	events := collect(c, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Run(ctx); !errors.Is(err, errDone) {
		t.Errorf("got %v, %q", err, *events)
	}
}

func TestParseURL(t *testing.T) {
	for _, tc := range []struct{ text, want, problem string }{
		{text: "https://example.com/a?b=c#d", want: "https://example.com/a?b=c"},
		{text: "example.com/events", want: "https://example.com/events"},
		{text: "localhost/events", want: "http://localhost/events"},
		{text: "localhost:9000", want: "http://localhost:9000"},
		{text: ":9000/events", want: "http://localhost:9000/events"},
		{text: "127.0.0.1:9000", want: "http://127.0.0.1:9000"},
		{text: "[::1]:9000/x", want: "http://[::1]:9000/x"},
		{text: "app.localhost:80", want: "http://app.localhost:80"},
		{text: "", problem: "empty"},
		{text: "ftp://example.com", problem: "not an http or https URL"},
		{text: "http://", problem: "no host"},
		{text: "http://a b/", problem: "is not a URL"},
		{text: "http://x:99999999/%zz", problem: "is not a URL"},
	} {
		u, err := ParseURL(tc.text)
		switch {
		case tc.problem != "":
			if err == nil || !strings.Contains(err.Error(), tc.problem) {
				t.Errorf("%q: got %v, want %q", tc.text, err, tc.problem)
			}
		case err != nil || u.String() != tc.want:
			t.Errorf("%q: got %v, %v, want %s", tc.text, u, err, tc.want)
		}
	}
}

func TestParseHeader(t *testing.T) {
	header, err := ParseHeader([]string{"Authorization: Bearer a:b", "x-a:1", "X-A: 2", "X-Empty:"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(header); got != "map[Authorization:[Bearer a:b] X-A:[1 2] X-Empty:[]]" {
		t.Errorf("got %s", got)
	}
	for _, line := range []string{"", "x", ": x", "a b: c", "X: a\r\nY: b", "X: \x00", "Ü: x"} {
		if _, err := ParseHeader([]string{line}); err == nil {
			t.Errorf("%q: got no error", line)
		}
	}
	if CheckLastEventID("a\nb") == nil || CheckLastEventID("ä 1") != nil {
		t.Error("last event id is not checked")
	}
}
