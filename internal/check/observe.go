package check

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/eventsource"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

const (
	// together is how close two arrivals are that count as one batch. A batch
	// that the network has cut into packets arrives within this time.
	together = 30 * time.Millisecond

	// greeting is how soon after the header something comes that was there
	// before the client was: history, a snapshot, a comment.
	greeting = 500 * time.Millisecond

	// maxBatches and maxIDs bound what is remembered of a fast stream.
	maxBatches = 50_000
	maxIDs     = 1000
)

// An observation is what was seen of one connection.
type observation struct {
	begun     time.Time
	connected time.Time // the connection stood; zero if unknown
	opened    time.Time // the header was there; zero if it never was
	over      time.Time // the end of the connection, or of looking
	redirects []string
	response  *http.Response
	remote    string

	// How the connection ended: nil if it was still open when looking ended.
	err   error
	ended bool // the server ended it without an error

	batches    []batch
	bytes      int
	events     int
	heartbeats int
	withID     int
	largest    int
	retries    []time.Duration
	ids        []string // of the newest events that have one
	half       bool     // the last bytes are the beginning of an event
	lineEnds   framing
}

// A batch is what arrived at once.
type batch struct {
	from, to    time.Time
	bytes       int
	events      int
	heartbeats  int
	half        bool          // it ends within an event
	early, late time.Duration // the times named in its events, since the epoch; 0 if none
}

// progress counts what has been seen so far, for those who watch.
type progress struct {
	events, heartbeats atomic.Int64
}

// errTimeUp is the cause of the context of an observation that has lasted long
// enough.
var errTimeUp = errors.New("time is up")

// errSeen ends an observation that has seen what it was made for.
var errSeen = errors.New("seen")

// observe reads a stream for a while. It returns sooner if the stream ends, or
// each returns true for an event with data.
func observe(ctx context.Context, client eventsource.Client, d time.Duration, count *progress, each func(e *sse.Event) bool) *observation {
	o := &observation{begun: time.Now()}
	ctx, cancel := context.WithTimeoutCause(ctx, d, errTimeUp)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if o.connected.IsZero() {
				o.connected = time.Now()
			}
			o.remote = info.Conn.RemoteAddr().String()
		},
	})
	client.NoReconnect = true
	client.Observer = eventsource.Observer{
		Redirected: func(to *url.URL) {
			o.redirects = append(o.redirects, to.Redacted())
		},
		Opened: func(r *http.Response) error {
			o.opened, o.response = time.Now(), r
			return nil
		},
		Bytes: func(at time.Time, p []byte) error {
			o.arrived(at, p)
			count.heartbeats.Store(int64(o.heartbeats))
			return nil
		},
		Event: func(_ time.Time, e *sse.Event, _ string) error {
			o.event(e)
			count.events.Store(int64(o.events))
			if e.HasData && each != nil && each(e) {
				return errSeen
			}
			return nil
		},
	}
	err := client.Run(ctx)
	o.over = time.Now()
	o.half = o.lineEnds.half()
	if n := len(o.batches); n > 0 {
		o.batches[n-1].half = o.half
	}
	switch {
	case err == nil:
		o.ended = true
	case ctx.Err() != nil, errors.Is(err, errSeen):
	default:
		o.err = err
	}
	return o
}

// arrived notes the arrival of bytes. It is called before their events are.
func (o *observation) arrived(at time.Time, p []byte) {
	o.bytes += len(p)
	n := len(o.batches)
	switch {
	case n > 0 && (at.Sub(o.batches[n-1].to) <= together || n == maxBatches):
		o.batches[n-1].to = at
	default:
		if n > 0 {
			o.batches[n-1].half = o.lineEnds.half()
		}
		o.batches = append(o.batches, batch{from: at, to: at})
		n++
	}
	b := &o.batches[n-1]
	b.bytes += len(p)
	comments := o.lineEnds.write(p)
	if len(o.batches) == 1 || at.Sub(o.opened) <= greeting {
		comments = 0 // they greet, or fill a buffer
	}
	b.heartbeats += comments
	o.heartbeats += comments
}

func (o *observation) event(e *sse.Event) {
	if e.HasRetry && len(o.retries) < maxIDs {
		o.retries = append(o.retries, e.Retry)
	}
	if !e.HasData {
		return
	}
	b := &o.batches[len(o.batches)-1]
	if isHeartbeat(e) {
		b.heartbeats++
		o.heartbeats++
		return
	}
	b.events++
	o.events++
	o.largest = max(o.largest, len(e.Data)+len(e.ID)+len(e.Type))
	if e.HasID && len(e.ID) > 0 {
		o.withID++
		if len(o.ids) == maxIDs {
			o.ids = append(o.ids[:0], o.ids[maxIDs/2:]...)
		}
		o.ids = append(o.ids, string(e.ID))
	}
	if stamp := findTime(e, b.to); stamp != 0 {
		if b.early == 0 || stamp < b.early {
			b.early = stamp
		}
		b.late = max(b.late, stamp)
	}
}

// isHeartbeat reports whether an event says only that the stream is alive.
func isHeartbeat(e *sse.Event) bool {
	switch strings.ToLower(string(e.Type)) {
	case "ping", "heartbeat", "keepalive", "keep-alive", "keep_alive":
		return !e.HasID
	}
	return false
}

// Times as they stand in events: RFC 3339, or milliseconds since the epoch.
var (
	rfc3339 = regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)`)
	millis  = regexp.MustCompile(`\b[12]\d{12}\b`)
)

// findTime returns the time that an event names, if it is one of the last
// minutes: then it most likely says when the event was made. What is older is
// history that the server repeats.
func findTime(e *sse.Event, now time.Time) time.Duration {
	const recent = 10 * time.Minute
	for _, text := range [...][]byte{e.ID, e.Data[:min(len(e.Data), 4096)]} {
		var at time.Time
		if m := rfc3339.Find(text); m != nil {
			at, _ = time.Parse(time.RFC3339, strings.Replace(string(m), " ", "T", 1))
		} else if m := millis.Find(text); m != nil {
			ms, _ := strconv.ParseInt(string(m), 10, 64)
			at = time.UnixMilli(ms)
		}
		if age := now.Sub(at); !at.IsZero() && -recent < age && age < recent {
			return time.Duration(at.UnixNano())
		}
	}
	return 0
}

// framing follows the lines of a stream as far as it takes to find comments, and
// to know whether an event has begun.
type framing struct {
	inLine, inBlock, afterCR bool
}

// write returns how many comments begin in p.
func (f *framing) write(p []byte) (comments int) {
	for _, c := range p {
		if f.afterCR {
			f.afterCR = false
			if c == '\n' {
				continue
			}
		}
		switch {
		case c == '\n' || c == '\r':
			f.inBlock = f.inBlock && f.inLine
			f.inLine, f.afterCR = false, c == '\r'
		case f.inLine:
		default:
			f.inLine = true
			if c == ':' {
				comments++
			} else {
				f.inBlock = true
			}
		}
	}
	return comments
}

func (f *framing) half() bool {
	return f.inLine || f.inBlock
}

// silences returns the longest time without a byte while the stream was open,
// and the one at its end.
func (o *observation) silences() (longest, last time.Duration) {
	at := o.opened
	for _, b := range o.batches {
		longest = max(longest, b.from.Sub(at))
		at = b.to
	}
	last = o.over.Sub(at)
	return max(longest, last), last
}

// live are the batches that were not there when the stream was opened. The first
// of those may be history or a snapshot, which is sent at once.
func (o *observation) live() []batch {
	for i, b := range o.batches {
		if b.from.Sub(o.opened) > greeting {
			return o.batches[i:]
		}
	}
	return nil
}
