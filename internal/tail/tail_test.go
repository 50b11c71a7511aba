package tail

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource/eventsourcetest"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC // the golden outputs name times of the day
	m.Run()
}

// A step of a server's script: what it sends after a time.
type step struct {
	after time.Duration
	text  string
}

const s = time.Second

// broken ends a script by breaking the connection.
const broken = "\x00broken"

// server answers each connection with a script, and a 204 after the last.
func server(scripts ...[]step) eventsourcetest.Transport {
	n := 0
	return func(w http.ResponseWriter, r *http.Request) {
		if n == len(scripts) {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		script := scripts[n]
		n++
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		for _, step := range script {
			if !eventsourcetest.Wait(r, step.after) {
				return
			}
			if step.text == broken {
				panic(http.ErrAbortHandler)
			}
			if _, err := io.WriteString(w, step.text); err != nil {
				return
			}
		}
	}
}

func client(transport http.RoundTripper) *eventsource.Client {
	return &eventsource.Client{URL: &url.URL{Scheme: "https", Host: "example.com", Path: "/events"}, Transport: transport}
}

// run returns what a tail prints, and tells.
func run(t *testing.T, tail *Tail, c *eventsource.Client, ctx context.Context) (out, notices string, err error) {
	var o, n bytes.Buffer
	tail.Out, tail.Notices = &o, &n
	err = tail.Run(ctx, c)
	return o.String(), n.String(), err
}

func compare(t *testing.T, what, got, want string) {
	t.Helper()
	if want = strings.TrimPrefix(want, "\n"); got != want {
		t.Errorf("%s: got\n%s\nwant\n%s", what, got, want)
	}
}

func TestHuman(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail := new(Tail)
		out, notices, err := run(t, tail, client(server(
			[]step{
				{0, ": hello\nretry: 1000\n\n"},
				{s / 2, "id: 9\ndata: {\"a\": [1, 2],  \"b\": null}\n\n"},
				{1002 * time.Millisecond, "id: 10\nevent: tick\ndata: one\ndata:\ndata:  three\n\nevent: tick\ndata\n\n"},
				{14 * s, ":\n\nid: 11\n\ndata: \x1b[2Jno tricks\n\n"},
				{100 * s, broken},
			},
			[]step{{0, "id: a-much-longer-id\nevent: a-longer-type\ndata: x\n\n"}, {90 * s, "data: y\n\n"}},
		)), t.Context())
		if !errors.Is(err, eventsource.ErrStopped) {
			t.Errorf("got %v", err)
		}
		compare(t, "events", out, `
00:00:00.500           9  message  {"a": [1, 2],  "b": null}
00:00:01.502   +1.00s  10  tick     one

                                     three
00:00:01.502     +0ms      tick
00:00:15.502  +14.00s      message  ␛[2Jno tricks
00:01:56.502           a-much-longer-id  a-longer-type  x
00:03:26.502   +1m30s                    message        y
`)
		compare(t, "notices", notices, `
● https://example.com/events  HTTP/2.0 200 OK after 0ms
○ the connection broke: unexpected EOF; trying again in 1s
● https://example.com/events  HTTP/2.0 200 OK after 0ms
○ the server ended the stream; trying again in 1s
■ 6 events in 3m28s, 2 reconnects
`)
	})
}

func TestColours(t *testing.T) {
	var c columns
	at := time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	e := &sse.Event{ID: []byte("7"), HasID: true, Data: []byte("x"), HasData: true}
	got := string(c.append(nil, terminal.Colours, row{at: at, last: at.Add(-s), kind: "message", event: e}))
	compare(t, "line", got, "\x1b[2m03:04:05.006\x1b[0m\x1b[2m   +1.00s\x1b[0m  \x1b[36m7\x1b[0m  \x1b[32mmessage\x1b[0m  x\n")
}

func TestJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, _, err := run(t, &Tail{Form: JSON, Count: 4}, client(server([]step{
			{s, "retry: 500\nid: 9\nevent: tick\ndata: {\"a\": \"<&>\"}\n\n"},
			{s, "data: one\ndata: two\n\n"},
			{s, "id\ndata: \xff\x1b\n\n"},
			{s, "data\n\ndata: too many\n\n"},
		})), t.Context())
		if err != nil {
			t.Error(err)
		}
		compare(t, "events", out, `
{"time":"2000-01-01T00:00:01.000Z","id":"9","type":"tick","data":"{\"a\": \"<&>\"}","retry":500,"last_event_id":"9"}
{"time":"2000-01-01T00:00:02.000Z","type":"message","data":"one\ntwo","last_event_id":"9"}
{"time":"2000-01-01T00:00:03.000Z","id":"","type":"message","data":"�\u001b"}
{"time":"2000-01-01T00:00:04.000Z","type":"message","data":""}
`)
	})
}

// The raw form is the bytes, up to the end of the last event that was asked for.
func TestRaw(t *testing.T) {
	const text = "\xEF\xBB\xBF: hello\r\n\r\nid: 1\r\ndata: x\r\n\r\n:\r\n\r\ndata: y\r\n\r\ndata: z\r\n\r\n"
	for count, want := range map[int]string{
		0: text + "half",
		1: text[:strings.Index(text, ":\r\n\r\ndata: y")],
		2: text[:strings.Index(text, "data: z")],
	} {
		synctest.Test(t, func(t *testing.T) {
			c := client(server([]step{{0, text}, {0, "half"}}))
			c.NoReconnect = true
			out, notices, err := run(t, &Tail{Form: Raw, Count: count}, c, t.Context())
			if err != nil || out != want {
				t.Errorf("count %d: got %q, %v, want %q", count, out, err, want)
			}
			if count == 2 && !strings.Contains(notices, "■ 2 events in") {
				t.Errorf("got %q", notices)
			}
		})
	}
}

func TestTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, notices, err := run(t, &Tail{Types: []string{"a", "message"}, Count: 2}, client(server([]step{
			{s, "event: a\ndata: 1\n\nevent: b\ndata: 2\n\ndata: 3\n\nevent: a\ndata: 4\n\n"},
		})), t.Context())
		if err != nil || strings.Count(out, "\n") != 2 || !strings.Contains(out, "message  3\n") {
			t.Errorf("got %q, %v", out, err)
		}
		if !strings.HasSuffix(notices, "■ 2 of 3 events in 1s\n") {
			t.Errorf("got %q", notices)
		}
	})
}

func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, notices, _ := run(t, &Tail{Quiet: true}, client(server([]step{{s, broken}})), t.Context())
		if notices != "" {
			t.Errorf("got %q", notices)
		}
	})
}

func TestTimeoutAndInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endless := []step{{time.Hour, "data: x\n\n"}}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*s, ErrTimeout)
		defer cancel()
		_, _, err := run(t, new(Tail), client(server(endless)), ctx)
		if !errors.Is(err, ErrTimeout) {
			t.Errorf("got %v, want ErrTimeout", err)
		}

		ctx, interrupt := context.WithCancel(t.Context())
		time.AfterFunc(10*s, interrupt)
		_, notices, err := run(t, new(Tail), client(server(endless)), ctx)
		if err != nil || !strings.HasSuffix(notices, "■ 0 events in 10s\n") {
			t.Errorf("got %v, %q", err, notices)
		}
	})
}

// Whoever waits for an answer is told that it is being waited for.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		_, notices, err := run(t, new(Tail), client(eventsourcetest.Transport(func(w http.ResponseWriter, r *http.Request) {
			if n++; n == 3 {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			time.Sleep(time.Duration(n) * 4 * s)
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, ": hello\nretry: 20000\n\n")
		})), t.Context())
		if err == nil || err.Error() != "404 Not Found" {
			t.Errorf("got %v", err)
		}
		compare(t, "notices", notices, `
● https://example.com/events  HTTP/2.0 200 OK after 4s
○ the server ended the stream; trying again in 20s
… no answer yet after 5s; a browser would wait as well
● https://example.com/events  HTTP/2.0 200 OK after 8s
○ the server ended the stream; trying again in 20s
■ 0 events in 48s, 2 reconnects
`)
	})
}

func TestTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, notices, _ := run(t, new(Tail), client(server([]step{{0, "retry: 12000\n\n"}})), t.Context())
		compare(t, "notices", notices, `
● https://example.com/events  HTTP/2.0 200 OK after 0ms
○ the server turned this client away and asked it to come back in 12s: probably a limit is reached, or it is restarting; trying again in 12s
■ 0 events in 12s, 1 reconnect
`)
	})
}

type failingWriter struct{}

var errDisk = errors.New("no space left on device")

func (failingWriter) Write([]byte) (int, error) { return 0, errDisk }

func TestFailedWrite(t *testing.T) {
	for _, form := range []Form{Human, JSON, Raw} {
		synctest.Test(t, func(t *testing.T) {
			tail := &Tail{Form: form, Out: failingWriter{}, Notices: io.Discard}
			if err := tail.Run(t.Context(), client(server([]step{{s, "data: x\n\n"}}))); !errors.Is(err, errDisk) {
				t.Errorf("form %d: got %v", form, err)
			}
		})
	}
}
