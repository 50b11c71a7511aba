// Package settings has the options of sse_fanout: what they are in JSON and in a Caddyfile,
// their defaults, which of them are errors, and what is derived from them.
package settings

import (
	"github.com/caddyserver/caddy/v2"
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

	// Whether the nodes of the fleet open one connection to the origin for all of
	// them together. It needs the app sse_fanout_fleet. Nodes share topics of handlers
	// that are configured alike, or that have the same Name, which is then the
	// definition. The wrapping form needs a Name. Default: no.
	Fleet bool `json:"fleet,omitempty"`

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

	// Whether topics are compressed for clients whose Accept-Encoding asks for it.
	Compress Compress `json:"compress,omitzero"`

	// How long a client may take nothing of what is written to it. Default: 10s.
	DispatchTimeout caddy.Duration `json:"dispatch_timeout,omitempty"`

	// Over how long subscribers are ended when a reload has changed or removed
	// their handler, and by how much the reconnection times that they are told
	// differ. Default: 10s.
	StreamCloseDelay caddy.Duration `json:"stream_close_delay,omitempty"`

	// The origins (as in "https://example.com") whose pages may read the
	// streams, or "*" for all. Default: the CORS headers of the upstream's
	// answer pass, and pages of different origins do not share a topic.
	CORSOrigins []string `json:"cors_origins,omitempty"`
}

// Compress is how topics are compressed. A topic is compressed once for all of its clients
// that accept gzip (RFC 9110, section 12.5.3); the others get it as it is. A client that
// joins gets its first events uncompressed, inside of gzip: 16 KiB of them, or those of ten
// seconds, at most until the next restart point of the compressor. Requests that pass one to
// one are not compressed.
type Compress struct {
	// "gzip", or "off". Default: "off".
	Encoding string `json:"encoding,omitempty"`

	// The level of compression, from 1 to 9. As all clients share the work, it matters
	// little for the processor. Default: 7.
	Level int `json:"level,omitempty"`

	// From how many subscribers on a topic is compressed: those who come first get it as
	// it is, as the compressor of a topic takes a megabyte of memory. There are 128
	// compressors in a process at most. Default: 2.
	From int `json:"from,omitempty"`

	// Compresses topics though Vary names what may identify a client, such as Cookie.
	// Where one who listens on the network can also make a part of the events of somebody
	// else, their length tells whether that part is like a secret in the rest (as in the
	// BREACH attack). So this is an error otherwise.
	WithCredentials bool `json:"with_credentials,omitempty"`
}

// Heartbeat is what subscribers get when a topic has been quiet.
type Heartbeat struct {
	// How long a topic is quiet before a heartbeat. A negative value turns
	// heartbeats off. Default: 15s.
	Interval caddy.Duration `json:"interval,omitempty"`

	// If set, an event of this type, with empty data and without an id, is
	// sent in place of an empty comment, so that scripts in a page can see it.
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
