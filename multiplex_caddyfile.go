package ssefanout

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("sse_multiplex", parseMultiplex)

	// It answers by itself, so it comes before what answers the rest of the site.
	httpcaddyfile.RegisterDirectiveOrder("sse_multiplex", httpcaddyfile.After, "metrics")
}

func parseMultiplex(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Multiplex)
	return h, h.UnmarshalCaddyfile(helper.Dispenser)
}

// multiplexGrammar is the syntax of the options of sse_multiplex.
var multiplexGrammar = map[string]struct {
	syntax string
	parse  func(h *Multiplex, args *arguments)
}{
	"heartbeat": {"off|<duration>", func(h *Multiplex, args *arguments) {
		if h.Heartbeat = args.limit(); h.Heartbeat == 0 {
			h.Heartbeat = -1
		}
	}},
	"retry":       {"<duration>", func(h *Multiplex, args *arguments) { h.Retry = args.duration() }},
	"max_streams": {"<n>", func(h *Multiplex, args *arguments) { h.MaxStreams = args.number() }},
	"max_connections": {"<n> [per_client_ip <n>]", func(h *Multiplex, args *arguments) {
		h.MaxConnections.Total = args.number()
		if args.next("per_client_ip") {
			h.MaxConnections.PerClientIP = args.number()
		}
	}},
	"max_event_size":     {"<size>", func(h *Multiplex, args *arguments) { h.MaxEventSize = args.size() }},
	"dispatch_timeout":   {"<duration>", func(h *Multiplex, args *arguments) { h.DispatchTimeout = args.duration() }},
	"stream_close_delay": {"<duration>", func(h *Multiplex, args *arguments) { h.StreamCloseDelay = args.duration() }},
	"cors_origins": {"<origin...>|*", func(h *Multiplex, args *arguments) {
		h.CORSOrigins = args.texts()
		if _, err := newCORSPolicy(h.CORSOrigins); err != nil {
			args.fail("%w", err)
		}
	}},
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_multiplex [<matcher>] {
//	    heartbeat          off|<duration>
//	    retry              <duration>
//	    max_streams        <n>
//	    max_connections    <n> [per_client_ip <n>]
//	    max_event_size     <size>
//	    dispatch_timeout   <duration>
//	    stream_close_delay <duration>
//	    cors_origins       <origin...>|*
//	}
//
// The options are those of [Multiplex], where their defaults are. The path must also match
// client.js below it:
//
//	handle /streams* {
//	    sse_multiplex
//	}
func (h *Multiplex) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive name
	if d.NextArg() {
		return d.Errf("unexpected argument %q; expected: sse_multiplex [<matcher>] { <options...> }", d.Val())
	}
	given := make(map[string]bool)
	for d.NextBlock(0) {
		name := d.Val()
		option, ok := multiplexGrammar[name]
		if !ok {
			return d.Errf("unrecognized subdirective %s of sse_multiplex", name)
		}
		if given[name] {
			return d.Errf("%s is already set: it can be given only once", name)
		}
		given[name] = true
		args := &arguments{d: d, option: name}
		option.parse(h, args)
		args.end()
		err := args.err
		if err == nil {
			err = h.Validate()
		}
		if err != nil {
			return d.Errf("%w; expected: %s %s", err, name, option.syntax)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Multiplex)(nil)
)
