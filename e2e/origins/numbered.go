package origins

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Numbered is an origin with a bounded store that survives its restarts: what
// event n of a topic is, and when it happens, is known beforehand. It refuses a
// last event id whose successors it has no longer, as an honest origin does.
type Numbered struct {
	Epoch    time.Time
	Interval time.Duration
	Lookback time.Duration // how long an event stays in the store
	Bursts   []Burst       // in order

	// Journal, if set, gets a line whenever a stream begins or ends: when, in nanoseconds,
	// the topic, and how many streams of it are open since then.
	Journal io.Writer

	mu sync.Mutex

	// Guarded by mu.
	outage  outage
	since   time.Time // when it began to count, where it counts itself
	streams map[chan struct{}]struct{}
	open    int
	most    int
	ofTopic map[string]int // of open
}

// A Burst is events that happen all at once.
type Burst struct {
	At   time.Duration // after the epoch
	Size int
}

// An outage is an answer that is no event stream, given for a while.
type outage struct {
	status     int
	retryAfter string
	until      time.Time
	refused    map[asker]int // noes to an id that were not followed by one to none
}

// An asker is a topic of one site.
type asker struct{ site, topic string }

// afterwards is how long after an outage an origin waits for those who were refused
// with an id in it to ask without.
const afterwards = 3 * time.Second

// Newest is the newest event at a time.
func (o *Numbered) Newest(now time.Time) int {
	since := now.Sub(o.Epoch)
	n := int(since / o.Interval)
	for _, b := range o.Bursts {
		if b.At <= since {
			n += b.Size
		}
	}
	return n
}

// At is when event n happens.
func (o *Numbered) At(n int) time.Time {
	extra := 0
	for _, b := range o.Bursts {
		before := int(b.At/o.Interval) + extra
		if n <= before {
			break
		}
		if n <= before+b.Size {
			return o.Epoch.Add(b.At)
		}
		extra += b.Size
	}
	return o.Epoch.Add(time.Duration(n-extra) * o.Interval)
}

// Has says whether everything after event n is in the store.
func (o *Numbered) Has(n int, now time.Time) bool {
	return now.Sub(o.At(n+1)) < o.Lookback
}

// Dispatched says whether event n has data; the others only move the position.
func Dispatched(n int) bool { return n%16 != 5 }

// Data is that of event n of a topic.
func Data(topic string, n int) string {
	size := 40 + n*37%400
	if n%500 == 250 {
		size = 20 << 10
	}
	return topic + " " + strconv.Itoa(n) + "\n" + strings.Repeat("x", size)
}

func appendNumbered(b []byte, topic string, n int) []byte {
	b = fmt.Appendf(b, "id: %s\n", ID(topic, n))
	if !Dispatched(n) {
		return append(b, '\n')
	}
	if n%16 == 9 {
		b = append(b, "event: tick\n"...)
	}
	for line := range strings.SplitSeq(Data(topic, n), "\n") {
		b = append(b, "data: "...)
		b = append(b, line...)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

// ServeHTTP serves the topic that the path names.
func (o *Numbered) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("Last-Event-ID")
	if status, retryAfter := o.answer(asker{r.Header.Get("X-Forwarded-Proto"), r.URL.Path}, id != ""); status != 0 {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, "down for maintenance", status)
		return
	}
	if BeginsAnew(r.URL.Path) {
		o.serveAnew(w, r, id)
		return
	}
	next := o.Newest(time.Now()) + 1
	if id != "" {
		last, err := Number(r.URL.Path, id)
		if err != nil || last >= next || !o.Has(last, time.Now()) {
			http.Error(w, "gone", http.StatusGone)
			return
		}
		next = last + 1
	}
	w.Header().Set("Content-Type", "text/event-stream")
	dropped := o.enter(r.URL.Path)
	defer o.leave(r.URL.Path, dropped)
	rc := http.NewResponseController(w)
	fmt.Fprint(w, "retry: 300\n\n")
	if rc.Flush() != nil {
		return
	}
	var buf []byte
	for {
		for newest := o.Newest(time.Now()); next <= newest; {
			buf = buf[:0]
			for ; next <= newest && len(buf) < 64<<10; next++ {
				buf = appendNumbered(buf, r.URL.Path, next)
			}
			if _, err := w.Write(buf); err != nil {
				return
			}
		}
		if rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-dropped:
			return
		case <-time.After(time.Until(o.At(next))):
		}
	}
}

// Outage makes the origin answer with a status for some time, and drops the
// streams.
func (o *Numbered) Outage(status int, retryAfter string, d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.outage = outage{status, retryAfter, time.Now().Add(d), make(map[asker]int)}
	o.drop()
}

// End ends the streams as a stream should end, and serves others at once.
func (o *Numbered) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop()
}

// drop ends the streams. o.mu must be held.
func (o *Numbered) drop() {
	for dropped := range o.streams {
		close(dropped)
	}
	clear(o.streams)
}

// answer is what an outage has for a request. Whoever was refused with an id and
// asks at once without it gets the same answer, also when the outage has just
// ended: nobody could tell otherwise that the id was not to blame.
func (o *Numbered) answer(from asker, withID bool) (status int, retryAfter string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := &o.outage
	switch over := time.Since(out.until); {
	case over > afterwards, over > 0 && (withID || out.refused[from] == 0):
		return 0, ""
	case withID:
		out.refused[from]++
	default:
		out.refused[from] = max(0, out.refused[from]-1)
	}
	return out.status, out.retryAfter
}

func (o *Numbered) enter(topic string) (dropped chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	dropped = make(chan struct{})
	if o.streams == nil {
		o.streams = make(map[chan struct{}]struct{})
		o.ofTopic = make(map[string]int)
	}
	o.streams[dropped] = struct{}{}
	o.open++
	o.most = max(o.most, o.open)
	o.count(topic, 1)
	return dropped
}

func (o *Numbered) leave(topic string, dropped chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.streams, dropped)
	o.open--
	o.count(topic, -1)
}

// count counts a stream of a topic. o.mu must be held.
func (o *Numbered) count(topic string, change int) {
	o.ofTopic[topic] += change
	if o.Journal != nil {
		fmt.Fprintln(o.Journal, time.Now().UnixNano(), topic, o.ofTopic[topic])
	}
}

// Streams is how many streams are open, and were at most.
func (o *Numbered) Streams() (now, most int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open, o.most
}
