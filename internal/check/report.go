package check

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sse-fanout/caddy-sse-fanout/internal/terminal"
)

// A Level is how bad a finding is.
type Level string

// The levels, from good to bad.
const (
	OK      Level = "ok"
	Note    Level = "note"    // good to know
	Warning Level = "warning" // may go wrong, or could not be judged
	Failure Level = "failure" // is wrong
)

// A Finding is one thing that was found out.
type Finding struct {
	Level Level  `json:"level"`
	About string `json:"about"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// A Report is what the check has come to.
type Report struct {
	URL         string     `json:"url"`
	Verdict     Level      `json:"verdict"`
	Summary     string     `json:"summary"`
	Connection  Connection `json:"connection"`
	Stream      Stream     `json:"stream"`
	Findings    []Finding  `json:"findings"`
	NotObserved []string   `json:"not_observed,omitempty"`

	// Err is why there was no stream to listen to, or not to its end.
	Err error `json:"-"`

	strip string
}

// Connection is the way to the stream.
type Connection struct {
	Status     string            `json:"status,omitempty"`
	Protocol   string            `json:"protocol,omitempty"`
	Remote     string            `json:"remote,omitempty"`
	Proxy      string            `json:"proxy,omitempty"` // of this machine's environment
	Redirects  []string          `json:"redirects,omitempty"`
	Recognized []string          `json:"recognized,omitempty"` // by the header
	ConnectMS  float64           `json:"connect_ms,omitempty"`
	HeaderMS   float64           `json:"header_ms,omitempty"`     // since the request was sent
	FirstMS    float64           `json:"first_byte_ms,omitempty"` // since the header
	Header     map[string]string `json:"header,omitempty"`
}

// Stream is what came.
type Stream struct {
	ListenedMS     float64  `json:"listened_ms"`
	Bytes          int      `json:"bytes"`
	Events         int      `json:"events"`
	EventsWithID   int      `json:"events_with_id"`
	Heartbeats     int      `json:"heartbeats"`
	Batches        int      `json:"batches"` // arrivals with nothing in between
	LargestEvent   int      `json:"largest_event"`
	LongestSilence float64  `json:"longest_silence_ms"`
	Gaps           *gapTime `json:"gaps_ms,omitempty"` // between arrivals of events
}

type gapTime struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// What of a header is about the way of a stream.
var telling = []string{
	"Content-Type", "Cache-Control", "Content-Encoding", "Content-Length", "Connection", "Keep-Alive",
	"X-Accel-Buffering", "Incremental", "Vary", "Age", "Via", "Server", "X-Powered-By", "Alt-Svc",
	"X-Cache", "X-Served-By", "X-Varnish", "X-Amz-Cf-Id", "X-Azure-Ref", "Cf-Ray", "Cf-Cache-Status",
	"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials",
}

func newReport(c *Check, o *observation) *Report {
	r := &Report{URL: c.Client.URL.Redacted(), Findings: []Finding{}}
	r.Stream = Stream{
		ListenedMS: ms(o.over.Sub(o.begun)), Bytes: o.bytes, Events: o.events, EventsWithID: o.withID,
		Heartbeats: o.heartbeats, Batches: len(o.batches), LargestEvent: o.largest,
	}
	r.Connection.Remote, r.Connection.Redirects = o.remote, o.redirects
	if !o.connected.IsZero() {
		r.Connection.ConnectMS = ms(o.connected.Sub(o.begun))
	}
	if o.response == nil {
		return r
	}
	longest, _ := o.silences()
	r.Stream.LongestSilence = ms(longest)
	if g := gapsOf(o.live()); len(g) > 0 {
		r.Stream.Gaps = &gapTime{ms(g[0]), ms(g[len(g)/2]), ms(g[len(g)-1])}
	}
	r.Connection.Status, r.Connection.Protocol = terminal.Clip(o.response.Status, 50), o.response.Proto
	r.Connection.HeaderMS = ms(o.opened.Sub(o.begun))
	if len(o.batches) > 0 {
		r.Connection.FirstMS = ms(o.batches[0].from.Sub(o.opened))
	}
	r.Connection.Header = make(map[string]string)
	for _, name := range telling {
		if values := o.response.Header.Values(name); len(values) > 0 {
			r.Connection.Header[name] = strings.Join(values, ", ")
		}
	}
	if encoding := o.response.TransferEncoding; len(encoding) > 0 {
		r.Connection.Header["Transfer-Encoding"] = strings.Join(encoding, ", ")
	}
	for _, h := range recognize(o.response.Header) {
		r.Connection.Recognized = append(r.Connection.Recognized, h.name)
	}
	r.strip = strip(o)
	return r
}

func ms(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}

// Worst returns the worst level of the findings.
func (r *Report) Worst() Level {
	levels := []Level{OK, Note, Warning, Failure}
	worst := 0
	for _, f := range r.Findings {
		worst = max(worst, slices.Index(levels, f.Level))
	}
	return levels[worst]
}

// conclude puts the findings into order, the worst first, and sums them up.
func (r *Report) conclude() {
	order := []Level{Failure, Warning, OK, Note}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return slices.Index(order, a.Level) - slices.Index(order, b.Level)
	})
	var failures, warnings int
	about := make(map[string]bool)
	for _, f := range r.Findings {
		switch f.Level {
		case Failure:
			failures++
			about[f.About] = true
		case Warning:
			warnings++
		default:
		}
	}
	r.Verdict = r.Worst()
	switch {
	case about["answer"]:
		r.Summary = "There is no stream to listen to."
	case about["buffering"] || r.held():
		r.Summary = "Something holds the stream back: events do not arrive when they are sent."
	case about["caching"]:
		r.Summary = "This is not the stream itself, but a copy from a cache."
	case about["end"]:
		r.Summary = "Something cuts the stream."
	case failures > 0:
		r.Summary = "The stream arrives, but not everybody can use it."
	case warnings > 0:
		r.Summary = fmt.Sprintf("The stream works, with %s to look at.", count(warnings, "thing"))
		if r.Stream.Events == 0 {
			r.Summary = "No event came, so there is not much to judge by."
		}
	default:
		r.Verdict = OK
		r.Summary = "The stream arrives as it is sent."
	}
}

func (r *Report) held() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Level == Failure && f.About == "compression" })
}

// WriteJSON writes the report as a JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}
