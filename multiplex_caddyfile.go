package ssefanout

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
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

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_multiplex [<matcher>] {
//	    heartbeat off|<duration>
//	    retry <duration>
//	    max_streams <n>
//	    max_connections <n> [per_client_ip <n>]
//	    max_event_size <size>
//	    direct on|off
//	    dispatch_timeout <duration>
//	    stream_close_delay <duration>
//	    cors_origins <origin...>|*
//	}
//
// The options are those of [MultiplexOptions], where their defaults are. The matcher must
// also let through client.js, which is below the path of the connections:
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
		if given[name] {
			return d.Errf("%s is already set: it can be given only once", name)
		}
		given[name] = true
		if err := settings.UnmarshalMultiplex(&h.MultiplexOptions, d); err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Multiplex)(nil)
