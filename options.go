package ssefanout

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fields"
	"github.com/sse-fanout/caddy-sse-fanout/internal/hub"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/sse"
)

// Options are the settings of a handler. Durations accept Go's notation and
// days ("1d"); in JSON, a number is nanoseconds. Where nothing else is said,
// zero or absent means the default, and negative values are errors.
type Options struct {
	// Tells handlers with equal settings apart over a reload. Default: none.
	Name string `json:"name,omitempty"`

	// The request headers and placeholders that an answer depends on. A header
	// named here is forwarded to the origin, and a placeholder is available to
	// the source's configuration; clients share a topic only if they agree on
	// the values of all of them. Wildcards, and headers with a dot in their
	// names, are errors. A header by which servers choose among a few variants,
	// such as Accept-Language, joins these for an hour when the origin's answer
	// names it in its own Vary. Default: none.
	Vary []string `json:"vary,omitempty"`

	// Query parameters that mean nothing to the stream, such as those that pages add
	// to get past caches ("_", "_ts"): requests that differ in these alone share a
	// topic, and the origin of a shared request does not see them. Default: none.
	IgnoreQuery []string `json:"ignore_query,omitempty"`

	// What becomes of requests that carry credentials or anything else that may
	// identify a client: "strip" shares them like any other, without what they
	// carry, and drops the cookies of the origin's answer; "pass" lets them
	// through one to one, and all requests for a stream that is answered with a
	// cookie. Default: "strip" with a source, "pass" without.
	Credentials string `json:"credentials,omitempty"`

	// The IP address from which shared requests come: as whom the site is asked in
	// the wrapping form, and what the origin gets to know of the client's address.
	// An intranet that admits private addresses alone names one of them. Default:
	// 192.0.2.1, an address that is nobody's (RFC 5737).
	AskFrom string `json:"ask_from,omitempty"`

	// What is sent when a topic has been quiet.
	Heartbeat Heartbeat `json:"heartbeat,omitzero"`

	// Which clients get a block without data at the start of a stream, with the
	// reconnection time and the position, and are told at its end when to come back: "auto" gives it to
	// the EventSource of browsers, "on" to all clients, "off" to none. Some libraries
	// take such a block for an event. Default: "auto".
	Primer string `json:"primer,omitempty"`

	// What a topic remembers for clients that resume or join late.
	History History `json:"history,omitzero"`

	// Where a client without a last event id begins: "newest" (only what is
	// yet to come), "oldest" (all that the history has), or the number of
	// events to begin with. Default: "newest".
	FirstEvent string `json:"first_event,omitempty"`

	// For origins that send a snapshot first and changes afterwards: what of a
	// connection's events is the snapshot, as the number of events at its start,
	// or the type of event of which the newest is. A client without a last event
	// id gets it first, then all that came after it, whatever FirstEvent says.
	// It is kept beside the history, at most that many events of MaxEventSize.
	// Default: none; such origins are not shareable then.
	Greeting string `json:"greeting,omitempty"`

	// Whose ids events have: "origin", or "assign", which gives events without
	// an id one, so that clients can resume though the origin has no ids. Such
	// ids never go to the origin. Default: "origin".
	IDs string `json:"ids,omitempty"`

	// How the events that a resuming client has missed are fetched when the
	// history does not have them any more.
	Catchup Catchup `json:"catchup,omitzero"`

	// The reconnection time that clients are told, in steps of a millisecond.
	// Default: the origin's, or 3s if it has not named one.
	Retry caddy.Duration `json:"retry,omitempty"`

	// The type of the event that tells a client of a gap: that the id it
	// resumed with is not known any more. Default: none, only a comment.
	GapEvent string `json:"gap_event,omitempty"`

	// What happens to a topic that has no subscribers.
	Linger Linger `json:"linger,omitzero"`

	// How long a client waits for the origin's first answer before it is
	// accepted and held with heartbeats, or rejected (see Unavailable).
	// Default: 10s.
	Wait caddy.Duration `json:"wait,omitempty"`

	// What a client gets when the origin has not answered within Wait: "hold"
	// accepts it and sends heartbeats until the origin is back, "reject"
	// answers 503 with Retry-After, after which a browser's EventSource gives
	// up for good. "reject" also applies to limits. Default: "hold".
	Unavailable string `json:"unavailable,omitempty"`

	// How long to wait before connecting to the origin again.
	Reconnect Reconnect `json:"reconnect,omitzero"`

	// How long the origin may be silent, comments included, before its
	// connection counts as dead. Default: no limit.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	// What a clean end of the origin's stream means: "reconnect", as it does
	// for EventSource, or "close", which ends the subscribers too. Default:
	// "reconnect".
	OnEnd string `json:"on_end,omitempty"`

	// The largest event, and the longest line, that is accepted from the
	// origin, in bytes. Its connection is cut at a larger one. At least 1 KiB and
	// at most 1 GiB. Default: 16 MiB.
	MaxEventSize int64 `json:"max_event_size,omitempty"`

	// How many topics there may be at once.
	MaxTopics TopicLimits `json:"max_topics,omitzero"`

	// How many subscribers there may be at once.
	MaxSubscribers SubscriberLimits `json:"max_subscribers,omitzero"`

	// How long a client's stream may last. Streams are ended over the last
	// fifth of this time, each at a random moment, so that they do not all
	// come back at once. Default: no limit.
	StreamTimeout caddy.Duration `json:"stream_timeout,omitempty"`

	// Whether the connections of clients that speak unencrypted HTTP/1.1 are taken
	// from the HTTP server once they have all that there is, and written to
	// directly: "on", or "off", which leaves a goroutine and its buffers to each.
	// Linux only, and only where nothing between this handler and the connection
	// changes what is written; other connections are served as if it were "off".
	// Default: "on".
	Direct string `json:"direct,omitempty"`

	// How long a write to a client may make no progress. Default: 10s.
	DispatchTimeout caddy.Duration `json:"dispatch_timeout,omitempty"`

	// Over how long subscribers are ended when a reload has changed or removed
	// their handler, and by how much the reconnection times that they are told
	// differ. Default: 10s.
	StreamCloseDelay caddy.Duration `json:"stream_close_delay,omitempty"`

	// The origins (as in "https://example.com") whose pages may read the
	// streams, or "*" for all. Default: the CORS headers of the upstream's
	// answer pass, and pages of different origins do not share a topic.
	CORSOrigins []string `json:"cors_origins,omitempty"`

	// Derived by provision.
	stranger     string // address that shared requests come from, with a port
	wrapping     bool
	strip        bool
	reject       bool
	first        int // how many events a fresh subscriber begins with; relay.AllEvents for "oldest"
	varyHeaders  []string
	varyReplacer []string
	varyUnknown  []atomic.Bool // of varyReplacer: it was unknown for a request, and the log says so
	cors         corsPolicy
	words        [audiences]relay.Words
	backlogBytes int // of unread catch-ups, all together
}

// Heartbeat is what subscribers get when a topic has been quiet.
type Heartbeat struct {
	// How long a topic is quiet before a heartbeat. A negative value turns
	// heartbeats off. Default: 15s.
	Interval caddy.Duration `json:"interval,omitempty"`

	// The text of the comment that is sent. Default: empty.
	Comment string `json:"comment,omitempty"`

	// If set, an event of this type, with empty data and without an id, is
	// sent in place of the comment, so that scripts in a page can see it.
	Event string `json:"event,omitempty"`
}

// History bounds what a topic remembers.
type History struct {
	// How many of the newest events. Default: 1000.
	Events int `json:"events,omitempty"`

	// For how long. Default: 5m.
	Age caddy.Duration `json:"age,omitempty"`

	// How many bytes of events. The newest of more than half of that is kept beside them.
	// Default: 4 MiB.
	Size int64 `json:"size,omitempty"`
}

// Catchup is how missed events are fetched from the origin over a second,
// short-lived connection. All clients with the same last event id share one. If
// it does not work out, the client is told of a gap and goes on live. The origin
// is asked up to 100 times a second for a topic, and a client address whose ids
// come to nothing has to wait.
type Catchup struct {
	// How many such connections a topic may have at once. Default: 2. A negative
	// value turns catching up off, for an origin with a single worker: the last
	// event id of the client that opens a topic then opens its connection, which
	// others join. It is given up if that brings nothing within the timeout.
	Connections int `json:"connections,omitempty"`

	// How long the first event may take. A catch-up that has not met the history
	// within ten times as long, or has brought more bytes than the history
	// holds, is given up. Default: 10s.
	Timeout caddy.Duration `json:"timeout,omitempty"`
}

// Linger is what happens to a topic that has no subscribers.
type Linger struct {
	// How long its connection to the origin stays open. A negative value
	// closes it at once. A topic that never had an event never lingers.
	// Default: 10s.
	Duration caddy.Duration `json:"duration,omitempty"`

	// How many topics may linger at once. Of more, the client address that has
	// opened most of them loses the one that has lingered longest.
	// Default: 100.
	Topics int `json:"topics,omitempty"`
}

// Reconnect is how long to wait before connecting to the origin again: random
// between Min and a bound that doubles with each failure up to Max. The
// origin's "retry" field and its Retry-After header are waited out too, if
// they are longer, but no longer than an hour.
type Reconnect struct {
	// Default: 500ms.
	Min caddy.Duration `json:"min,omitempty"`

	// Default: 30s.
	Max caddy.Duration `json:"max,omitempty"`
}

// TopicLimits bound the topics of a handler. A client over a limit gets an
// empty stream that tells it when to come back (see Options.Unavailable).
type TopicLimits struct {
	// How many topics in all. When they are reached, a topic that the origin has
	// refused makes room for a new one, or else one of the client address that has
	// opened most: a lingering topic, or, if that address has opened more than
	// twice as many as the newcomer then has, one that only it uses, whose
	// subscribers are ended. Default: 10000.
	Total int `json:"total,omitempty"`

	// How many topics that one client address opened. In IPv6, a /64 is one
	// address. Default: no limit.
	PerClientIP int `json:"per_client_ip,omitempty"`
}

// SubscriberLimits bound the subscribers of a handler. Event streams that pass one
// to one count too, whatever the request was, except for PerTopic. A client over a
// limit gets an empty stream that tells it when to come back (see
// Options.Unavailable).
type SubscriberLimits struct {
	// Default: no limit.
	Total int `json:"total,omitempty"`

	// Default: no limit.
	PerTopic int `json:"per_topic,omitempty"`

	// How many of one client address. In IPv6, a /64 is one address. Default: no
	// limit.
	PerClientIP int `json:"per_client_ip,omitempty"`
}

// defaultStranger is an address that is nobody's (RFC 5737). Whatever judges by
// address, in the site or in the origin, judges a shared request a stranger.
const defaultStranger = "192.0.2.1"

const (
	defaultHeartbeat        = 15 * time.Second
	defaultHistoryEvents    = 1000
	defaultHistoryAge       = 5 * time.Minute
	defaultHistorySize      = 4 << 20
	defaultCatchups         = 2
	defaultCatchupTimeout   = 10 * time.Second
	defaultLinger           = 10 * time.Second
	defaultLingerTopics     = 100
	defaultWait             = 10 * time.Second
	defaultReconnectMin     = 500 * time.Millisecond
	defaultReconnectMax     = 30 * time.Second
	defaultMaxEventSize     = 16 << 20
	defaultMaxTopics        = 10000
	defaultDispatchTimeout  = 10 * time.Second
	defaultStreamCloseDelay = 10 * time.Second
	defaultBacklogBytes     = 64 << 20

	smallestEventSize = 1 << 10
	largestEventSize  = 1 << 30
)

// provision fills in the defaults and derives what is looked up per request.
func (o *Options) provision(wrapping bool) error {
	o.wrapping = wrapping
	o.stranger = net.JoinHostPort(cmp.Or(o.AskFrom, defaultStranger), "1")
	o.strip = o.Credentials == "strip" || o.Credentials == "" && !wrapping
	o.reject = o.Unavailable == "reject"

	setDefault(&o.Heartbeat.Interval, caddy.Duration(defaultHeartbeat))
	setDefault(&o.History.Events, defaultHistoryEvents)
	setDefault(&o.History.Age, caddy.Duration(defaultHistoryAge))
	setDefault(&o.History.Size, defaultHistorySize)
	o.History.Size = min(o.History.Size, math.MaxInt) // an int has 32 bits on some machines
	setDefault(&o.Catchup.Connections, defaultCatchups)
	setDefault(&o.Catchup.Timeout, caddy.Duration(defaultCatchupTimeout))
	setDefault(&o.Linger.Duration, caddy.Duration(defaultLinger))
	setDefault(&o.Linger.Topics, defaultLingerTopics)
	setDefault(&o.Wait, caddy.Duration(defaultWait))
	if o.Reconnect.Min == 0 {
		o.Reconnect.Min = caddy.Duration(defaultReconnectMin)
		if o.Reconnect.Max > 0 {
			o.Reconnect.Min = min(o.Reconnect.Min, o.Reconnect.Max)
		}
	}
	setDefault(&o.Reconnect.Max, max(o.Reconnect.Min, caddy.Duration(defaultReconnectMax)))
	setDefault(&o.MaxEventSize, defaultMaxEventSize)
	setDefault(&o.MaxTopics.Total, defaultMaxTopics)
	setDefault(&o.DispatchTimeout, caddy.Duration(defaultDispatchTimeout))
	setDefault(&o.backlogBytes, defaultBacklogBytes)
	setDefault(&o.StreamCloseDelay, caddy.Duration(defaultStreamCloseDelay))

	switch o.FirstEvent {
	case "", "newest":
		o.first = 0
	case "oldest":
		o.first = relay.AllEvents
	default:
		n, err := strconv.Atoi(o.FirstEvent)
		if err != nil || n < 1 {
			return fmt.Errorf("checking first_event: %q is not newest, oldest or a positive number", o.FirstEvent)
		}
		o.first = n
	}

	for _, name := range o.Vary {
		if placeholder, ok := strings.CutPrefix(name, "{"); ok {
			o.varyReplacer = append(o.varyReplacer, strings.TrimSuffix(placeholder, "}"))
		} else {
			o.varyHeaders = append(o.varyHeaders, fields.Canonical(name))
		}
	}
	o.words = wordsFor(o)
	o.varyUnknown = make([]atomic.Bool, len(o.varyReplacer))

	var err error
	o.cors, err = newCORSPolicy(o.CORSOrigins)
	if err != nil {
		return err
	}
	o.cors.headers = slices.Clone(o.varyHeaders)
	for _, placeholder := range o.varyReplacer {
		if name, ok := strings.CutPrefix(placeholder, "http.request.header."); ok {
			o.cors.headers = append(o.cors.headers, fields.Canonical(name))
		}
	}
	if !o.cors.enabled() {
		// The origin decides which pages may read the stream, so it must see
		// who asks, and its answer holds for them alone.
		o.varyHeaders = append(o.varyHeaders, "Origin")
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// relayConfig returns what the engine needs of the settings.
func (o *Options) relayConfig() relay.Config {
	cfg := relay.Config{
		Guarded:   o.wrapping,
		Heartbeat: time.Duration(o.Heartbeat.Interval),
		Words:     o.words[:],
		History: hub.Limits{
			Events: o.History.Events,
			Bytes:  int(o.History.Size),
			Age:    time.Duration(o.History.Age),
		},
		FirstEvents:              o.first,
		AssignIDs:                o.IDs == "assign",
		Catchups:                 o.Catchup.Connections,
		CatchupTimeout:           time.Duration(o.Catchup.Timeout),
		BacklogBytes:             o.backlogBytes,
		Retry:                    time.Duration(o.Retry),
		Linger:                   time.Duration(o.Linger.Duration),
		LingerTopics:             o.Linger.Topics,
		Wait:                     time.Duration(o.Wait),
		Reject:                   o.reject,
		ReconnectMin:             time.Duration(o.Reconnect.Min),
		ReconnectMax:             time.Duration(o.Reconnect.Max),
		IdleTimeout:              time.Duration(o.IdleTimeout),
		CloseOnEnd:               o.OnEnd == "close",
		MaxEventSize:             o.MaxEventSize,
		MaxTopics:                o.MaxTopics.Total,
		MaxTopicsPerAddress:      o.MaxTopics.PerClientIP,
		MaxSubscribers:           o.MaxSubscribers.Total,
		MaxSubscribersPerTopic:   o.MaxSubscribers.PerTopic,
		MaxSubscribersPerAddress: o.MaxSubscribers.PerClientIP,
		StreamTimeout:            time.Duration(o.StreamTimeout),
		Spread:                   time.Duration(o.StreamCloseDelay),
	}
	if n, err := strconv.Atoi(o.Greeting); err == nil {
		cfg.GreetingEvents = n
	} else {
		cfg.GreetingType = o.Greeting
	}
	return cfg
}

// reconnectionTime is what clients are told if the origin has said nothing.
func (o *Options) reconnectionTime() time.Duration {
	if o.Retry > 0 {
		return time.Duration(o.Retry)
	}
	return relay.DefaultRetry
}

// validate reports every setting that is out of its range.
func (o *Options) validate() error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("checking "+format, args...))
	}
	oneOf := func(option, value string, allowed ...string) {
		if value == "" || slices.Contains(allowed, value) {
			return
		}
		complain("%s: %q is not one of %s", option, value, strings.Join(allowed, ", "))
	}
	positive := func(option string, value int64) {
		if value < 0 {
			complain("%s: must be positive", option)
		}
	}
	oneLine := func(option, value string) {
		if !sse.Valid(value) {
			complain("%s: must not contain a line break or NUL", option)
		}
	}

	oneOf("credentials", o.Credentials, "strip", "pass")
	oneOf("unavailable", o.Unavailable, "hold", "reject")
	oneOf("primer", o.Primer, "auto", "on", "off")
	oneOf("ids", o.IDs, "origin", "assign")
	oneOf("on_end", o.OnEnd, "reconnect", "close")
	oneOf("direct", o.Direct, "on", "off")

	if _, err := netip.ParseAddr(o.AskFrom); o.AskFrom != "" && err != nil {
		complain("ask_from: %q is not an IP address", o.AskFrom)
	}
	oneLine("name", o.Name)
	oneLine("heartbeat comment", o.Heartbeat.Comment)
	oneLine("heartbeat event", o.Heartbeat.Event)
	oneLine("gap_event", o.GapEvent)
	oneLine("greeting", o.Greeting)
	if n, err := strconv.Atoi(o.Greeting); err == nil && n < 1 {
		complain("greeting: %d is not a positive number of events", n)
	}
	if o.Heartbeat.Comment != "" && o.Heartbeat.Event != "" {
		complain("heartbeat: it is a comment or an event, not both")
	}

	positive("history events", int64(o.History.Events))
	positive("history age", int64(o.History.Age))
	positive("history size", o.History.Size)
	positive("retry", int64(o.Retry))
	positive("catchup timeout", int64(o.Catchup.Timeout))
	positive("linger topics", int64(o.Linger.Topics))
	positive("wait", int64(o.Wait))
	positive("reconnect min", int64(o.Reconnect.Min))
	positive("reconnect max", int64(o.Reconnect.Max))
	positive("idle_timeout", int64(o.IdleTimeout))
	positive("max_event_size", o.MaxEventSize)
	positive("max_topics", int64(o.MaxTopics.Total))
	positive("max_topics per_client_ip", int64(o.MaxTopics.PerClientIP))
	positive("max_subscribers", int64(o.MaxSubscribers.Total))
	positive("max_subscribers per_topic", int64(o.MaxSubscribers.PerTopic))
	positive("max_subscribers per_client_ip", int64(o.MaxSubscribers.PerClientIP))
	positive("stream_timeout", int64(o.StreamTimeout))
	positive("dispatch_timeout", int64(o.DispatchTimeout))
	positive("stream_close_delay", int64(o.StreamCloseDelay))

	if o.Reconnect.Min > o.Reconnect.Max {
		complain("reconnect: the minimum of %s is above the maximum of %s",
			time.Duration(o.Reconnect.Min), time.Duration(o.Reconnect.Max))
	}
	if 0 < o.MaxEventSize && o.MaxEventSize < smallestEventSize {
		complain("max_event_size: must be at least 1 KiB, and is %d bytes: is its unit missing, as in 16MiB?", o.MaxEventSize)
	}
	if o.MaxEventSize > largestEventSize {
		complain("max_event_size: must be at most 1 GiB")
	}
	atLeastMillisecond := func(option string, d caddy.Duration) {
		if d > 0 && time.Duration(d) < time.Millisecond {
			complain("%s: must be at least 1ms", option)
		}
	}
	atLeastMillisecond("heartbeat", o.Heartbeat.Interval)
	atLeastMillisecond("retry", o.Retry)
	atLeastMillisecond("reconnect", o.Reconnect.Min)
	for _, name := range o.IgnoreQuery {
		if name == "" || strings.ContainsAny(name, "=&?#") {
			complain("ignore_query: %q is not the name of a query parameter", name)
		}
	}
	for _, name := range o.Vary {
		switch {
		case !validVary(name):
			complain("vary: %q is neither a header name nor a placeholder in braces", name)
		case strings.HasPrefix(name, "{"):
		case strings.Contains(name, "*"):
			complain("vary: %q matches no header: name each one that the stream depends on", name)
		case strings.Contains(name, "."):
			// HTTP allows it, but a header that no client sends merges all users.
			complain("vary: %q is no header: is the placeholder {%s} meant?", name, name)
		case fields.Canonical(name) == "Last-Event-Id":
			complain("vary: %s cannot be named, as it says where a client resumes and not what it asks for", name)
		}
	}
	return errors.Join(errs...)
}
