package settings

import (
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/sse-fanout/caddy-sse-fanout/internal/arguments"
	"github.com/sse-fanout/caddy-sse-fanout/internal/cors"
	"github.com/sse-fanout/caddy-sse-fanout/internal/multiplex"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// Multiplex are the settings of sse_multiplex. Where nothing else is said, zero or absent
// means the default, and negative values are errors.
type Multiplex struct {
	// How long a connection is quiet before it gets a comment. A negative value turns
	// heartbeats off. Default: 15s.
	Heartbeat caddy.Duration `json:"heartbeat,omitempty"`

	// The reconnection time that clients are told, and after which a stream that names none
	// is asked for again when it has ended, in steps of a millisecond. Default: 3s.
	Retry caddy.Duration `json:"retry,omitempty"`

	// How many streams a connection may have, at most 32. Each counts for the limits of
	// the `sse_fanout` that it leads to. Default: 32.
	MaxStreams int `json:"max_streams,omitempty"`

	// How many connections there may be at once. A client over a limit gets an empty stream
	// that tells it when to come back.
	MaxConnections ConnectionLimits `json:"max_connections,omitzero"`

	// The size of the largest event of a stream that is not shared, in bytes, from 1 KiB to
	// 64 MiB. A stream with a larger one is ended with status 413. Default: 1 MiB.
	MaxEventSize int64 `json:"max_event_size,omitempty"`

	// Whether the sockets of clients that have all events so far are written to directly, where
	// that is possible: "on", or "off", which leaves a goroutine and its buffers to each
	// connection. Default: "on".
	Direct string `json:"direct,omitempty"`

	// How long a write to a client may make no progress. Default: 10s.
	DispatchTimeout caddy.Duration `json:"dispatch_timeout,omitempty"`

	// Over how long connections are ended when a reload has changed or removed this handler.
	// Default: 10s.
	StreamCloseDelay caddy.Duration `json:"stream_close_delay,omitempty"`

	// The origins (as in "https://example.com") whose pages may read the connection, or "*"
	// for all. The answer to each stream must let the page read it, too. Requests of other
	// pages are answered with 403, and no stream is asked for. Default: none but the site's
	// own.
	CORSOrigins []string `json:"cors_origins,omitempty"`
}

// ConnectionLimits bound the connections of sse_multiplex.
type ConnectionLimits struct {
	// Default: 10000.
	Total int `json:"total,omitempty"`

	// How many of one client address. In IPv6, a /64 is one address. Default: no limit.
	PerClientIP int `json:"per_client_ip,omitempty"`
}

const (
	DefaultMaxConnections       = 10000
	DefaultMultiplexedEventSize = 1 << 20
	largestMultiplexedEventSize = 64 << 20
)

// WithDefaults returns the settings with their defaults.
func (o Multiplex) WithDefaults() *Multiplex {
	setDefault(&o.Heartbeat, caddy.Duration(DefaultHeartbeat))
	setDefault(&o.Retry, caddy.Duration(relay.DefaultRetry))
	setDefault(&o.MaxStreams, multiplex.MaxStreams)
	setDefault(&o.MaxConnections.Total, DefaultMaxConnections)
	setDefault(&o.MaxEventSize, DefaultMultiplexedEventSize)
	setDefault(&o.Direct, "on")
	setDefault(&o.DispatchTimeout, caddy.Duration(DefaultDispatchTimeout))
	setDefault(&o.StreamCloseDelay, caddy.Duration(DefaultStreamCloseDelay))
	return &o
}

// Validate reports every setting that is out of its range.
func (o *Multiplex) Validate() error {
	var found complaints
	found.positive("retry", int64(o.Retry))
	found.atLeastMillisecond("retry", o.Retry)
	if o.MaxStreams < 0 || o.MaxStreams > multiplex.MaxStreams {
		found.add("max_streams: must be from 1 to %d, and is %d", multiplex.MaxStreams, o.MaxStreams)
	}
	found.positive("max_connections", int64(o.MaxConnections.Total))
	found.positive("max_connections per_client_ip", int64(o.MaxConnections.PerClientIP))
	if o.MaxEventSize != 0 && (o.MaxEventSize < SmallestEventSize || o.MaxEventSize > largestMultiplexedEventSize) {
		found.add("max_event_size: must be from 1 KiB to 64 MiB, and is %d bytes: is its unit missing, as in 1MiB?", o.MaxEventSize)
	}
	found.oneOf("direct", o.Direct, "on", "off")
	found.positive("dispatch_timeout", int64(o.DispatchTimeout))
	found.positive("stream_close_delay", int64(o.StreamCloseDelay))
	if _, err := cors.New(o.CORSOrigins); err != nil {
		found = append(found, err)
	}
	return errors.Join(found...)
}

// A MultiplexOption is a subdirective of sse_multiplex.
type MultiplexOption struct {
	// Syntax is what follows its name.
	Syntax string

	parse func(*Multiplex, *arguments.Arguments)
}

// MultiplexGrammar has all options of sse_multiplex.
var MultiplexGrammar = map[string]MultiplexOption{
	"heartbeat": {"off|<duration>", func(o *Multiplex, args *arguments.Arguments) {
		if args.Next("off") {
			o.Heartbeat = -1
			return
		}
		o.Heartbeat = args.Duration()
	}},
	"retry":       {"<duration>", func(o *Multiplex, args *arguments.Arguments) { o.Retry = args.Duration() }},
	"max_streams": {"<n>", func(o *Multiplex, args *arguments.Arguments) { o.MaxStreams = args.Number() }},
	"max_connections": {"<n> [per_client_ip <n>]", func(o *Multiplex, args *arguments.Arguments) {
		o.MaxConnections.Total = args.Number()
		if args.Next("per_client_ip") {
			o.MaxConnections.PerClientIP = args.Number()
		}
	}},
	"max_event_size":     {"<size>", func(o *Multiplex, args *arguments.Arguments) { o.MaxEventSize = args.Size() }},
	"direct":             {"on|off", func(o *Multiplex, args *arguments.Arguments) { o.Direct = args.Text() }},
	"dispatch_timeout":   {"<duration>", func(o *Multiplex, args *arguments.Arguments) { o.DispatchTimeout = args.Duration() }},
	"stream_close_delay": {"<duration>", func(o *Multiplex, args *arguments.Arguments) { o.StreamCloseDelay = args.Duration() }},
	"cors_origins":       {"<origin...>|*", func(o *Multiplex, args *arguments.Arguments) { o.CORSOrigins = args.Texts() }},
}

// UnmarshalMultiplex sets the option of sse_multiplex that d is at.
func UnmarshalMultiplex(o *Multiplex, d *caddyfile.Dispenser) error {
	name := d.Val()
	option, ok := MultiplexGrammar[name]
	if !ok {
		return d.Errf("unrecognized subdirective %s: it is no option of sse_multiplex", name)
	}
	args := arguments.New(d, name)
	option.parse(o, args)
	args.End()
	err := args.Err
	if err == nil {
		// can only complain of this option, as those before it are valid
		err = o.Validate()
	}
	if err != nil {
		return d.Errf("%w; expected: %s %s", err, name, option.Syntax)
	}
	return nil
}
