package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	launchdarkly "github.com/launchdarkly/eventsource"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/eventsource"
)

// A writing is a stream as an origin writes it. The last event is of the type end.
type writing struct {
	name   string
	chunks []string
	want   []event
}

// writings has each stream with each line end, written whole and in pieces.
func writings() []writing {
	const theEnd = "event: end\ndata\n\n"
	large := strings.Repeat("0123456789abcde\u00e9", 5<<20/17)
	all := []writing{
		{"large", []string{"data: " + large + "\n\n" + theEnd}, []event{{data: large}}},
		{"large, in two writes", []string{"data: " + large[:1<<20], large[1<<20:] + "\n\n" + theEnd}, []event{{data: large}}},
	}
	ends := []struct{ name, end string }{{"LF", "\n"}, {"CRLF", "\r\n"}, {"CR", "\r"}}
	for _, s := range []struct {
		name, text string
		want       []event
	}{
		{"one line", "data: a\n\n", []event{{data: "a"}}},
		{"empty lines of data", "data\ndata:\ndata: a\ndata: \n\n", []event{{data: "\n\na\n"}}},
		{"empty data", "data\n\ndata:\n\n", []event{{}, {}}},
		{"fields", "event: t\nid: 1\ndata: a\n\ndata: b\nid: 2\nevent: u\n\n", []event{{"1", "t", "a"}, {"2", "u", "b"}}},
		{"an id stays", "id: 1\ndata: a\n\ndata: b\n\n", []event{{id: "1", data: "a"}, {id: "1", data: "b"}}},
		{"an id is taken back", "id: 1\ndata: a\n\nid\ndata: b\n\n", []event{{id: "1", data: "a"}, {data: "b"}}},
		{"an id that is none", "id: 1\x002\ndata: a\n\n", []event{{data: "a"}}},
		{"blanks", "event:t\ndata:a\n\nevent:  t\ndata:  a \n\n", []event{{name: "t", data: "a"}, {name: " t", data: " a "}}},
		{"colons", "data: a: b:\n\n", []event{{data: "a: b:"}}},
		// A block of meaningless fields alone is an event to this library.
		{"what means nothing", ": a\n\n:\n\n\n\ncolor: a\nDATA: a\ndata: b\n: c\ncolor\n\n", []event{{data: "b"}}},
		{"letters of several bytes", "event: \u00e9\nid: \u20ac\ndata: \u8c46\u8150 \U0001f389\n\n", []event{{"\u20ac", "\u00e9", "\u8c46\u8150 \U0001f389"}}},
		{"quick", strings.Repeat("data: a\n\n", 100), slices.Repeat([]event{{data: "a"}}, 100)},
	} {
		for _, end := range ends {
			text := strings.ReplaceAll(s.text+theEnd, "\n", end.end)
			name := s.name + ", " + end.name
			all = append(all, writing{name, []string{text}, s.want}, writing{name + ", in bytes", pieces(text, 1), s.want},
				writing{name + ", in pairs of bytes", pieces(text, 2), s.want})
		}
	}
	return all
}

func pieces(text string, size int) (chunks []string) {
	for chunk := range slices.Chunk([]byte(text), size) {
		chunks = append(chunks, string(chunk))
	}
	return chunks
}

// A client gets the events that the origin has written, to the byte, however that was
// done, the first of a stream as well as one that joins later. One that asks the origin
// itself tells that the test is right.
func TestEventsArriveAsWritten(t *testing.T) {
	t.Parallel()
	all := writings()
	origin := inGo(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("writing"))
		if err != nil || n >= len(all) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		for _, chunk := range all[n].chunks {
			if _, err := io.WriteString(w, chunk); err != nil || rc.Flush() != nil {
				return
			}
			// So that they are read one by one, most of them at least.
			time.Sleep(200 * time.Microsecond)
		}
		<-r.Context().Done()
	}))
	caddy := runCaddy(t, "", fmt.Sprintf(`HTTP {
	handle /endpoint {
		sse_fanout %s {
			first_event oldest
		}
	}
	handle {
		sse_fanout {
			first_event oldest
		}
		reverse_proxy %s
	}
}`, origin.addr, origin.addr))

	turns := make(chan struct{}, 16)
	var clients sync.WaitGroup
	for n, s := range all {
		check := func(base string, shared bool) {
			turns <- struct{}{}
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			url := fmt.Sprintf("%s?writing=%d", base, n)
			seen, leave := readLaunchDarkly(ctx, url, shared)
			defer leave()
			compareEvents(t, s.name+", from "+base, seen, s.want)
			if shared {
				compareEvents(t, s.name+", from "+base+", later, in a browser", readAsBrowser(ctx, url), s.want)
			}
		}
		clients.Go(func() { check("http://"+origin.addr+"/", false) })
		clients.Go(func() { check(caddy.http+"/endpoint", true) })
		clients.Go(func() { check(caddy.http+"/wrapping", true) })
	}
	clients.Wait()
}

// readLaunchDarkly returns the events before the end, or up to an error, which is the
// last; the client stays until leave is called.
func readLaunchDarkly(ctx context.Context, url string, shared bool) (seen []event, leave func()) {
	failed := func(err error) []event { return append(seen, event{name: "an error", data: err.Error()}) }
	errs := make(chan error, 1)
	s, err := launchdarkly.SubscribeWithURL(url, launchdarkly.StreamOptionErrorHandler(func(err error) launchdarkly.StreamErrorHandlerResult {
		errs <- err
		return launchdarkly.StreamErrorHandlerResult{CloseNow: true}
	}))
	if err != nil {
		return failed(err), func() {}
	}
	for {
		select {
		case <-ctx.Done():
			return failed(ctx.Err()), s.Close
		case err := <-errs:
			return failed(err), s.Close
		case e := <-s.Events:
			if e == nil {
				continue // it is closed behind an error
			}
			header := e.(launchdarkly.EventWithHeaders).Headers()
			if got := header.Get("Incremental") == "?1"; got != shared {
				return failed(fmt.Errorf("shared: %v", got)), s.Close
			}
			if e.Event() == "end" {
				return seen, s.Close
			}
			seen = append(seen, event{e.(launchdarkly.EventWithLastID).LastEventID(), e.Event(), e.Data()})
		}
	}
}

// readAsBrowser returns the events before the end, or up to an error, which is the last.
func readAsBrowser(ctx context.Context, url string) (seen []event) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := false
	s := eventsource.Source{URL: url, Client: http.DefaultClient, OnEvent: func(e eventsource.Event) {
		if ended = ended || e.Type == "end"; ended {
			cancel()
			return
		}
		seen = append(seen, event{e.ID, e.Type, e.Data})
	}}
	if err := s.Run(ctx); err != nil || !ended {
		seen = append(seen, event{name: "an error", data: fmt.Sprint(err)})
	}
	return seen
}

func compareEvents(t *testing.T, what string, got, want []event) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n\t%.500q\nwant\n\t%.500q", what, got, want)
	}
}
