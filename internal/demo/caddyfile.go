package demo

import (
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func parseOrigin(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	o := new(Origin)
	return o, o.UnmarshalCaddyfile(h.Dispenser)
}

func parsePage(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	p := new(Page)
	return p, p.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_demo_origin [<matcher>] {
//		max_connections <n>
//	}
func (h *Origin) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch d.Val() {
		case "max_connections":
			if h.MaxConnections != 0 {
				return d.Err("max_connections is given twice")
			}
			if !d.NextArg() {
				return d.ArgErr()
			}
			n, err := parseBound(d, maxMaxConnections)
			if err != nil {
				return err
			}
			h.MaxConnections = n
			if d.NextArg() {
				return d.ArgErr()
			}
		default:
			return d.Errf("unrecognized subdirective '%s'; allowed is max_connections", d.Val())
		}
	}
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	sse_demo_page [<matcher>] {
//		clients <url> [<max>]
//	}
func (h *Page) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch d.Val() {
		case "clients":
			if h.Clients != "" {
				return d.Err("clients is given twice")
			}
			if !d.NextArg() {
				return d.ArgErr()
			}
			if err := checkClientsURL(d.Val()); err != nil {
				return d.WrapErr(err)
			}
			h.Clients = d.Val()
			if d.NextArg() {
				n, err := parseBound(d, maxMaxClients)
				if err != nil {
					return err
				}
				h.MaxClients = n
			}
			if d.NextArg() {
				return d.ArgErr()
			}
		default:
			return d.Errf("unrecognized subdirective '%s'; allowed is clients", d.Val())
		}
	}
	return nil
}

// parseBound reads the current token as a number from 1 to limit.
func parseBound(d *caddyfile.Dispenser, limit int) (int, error) {
	n, err := strconv.Atoi(d.Val())
	if err != nil || n < 1 || n > limit {
		return 0, d.Errf("'%s' is not a number between 1 and %d", d.Val(), limit)
	}
	return n, nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Origin)(nil)
	_ caddyfile.Unmarshaler = (*Page)(nil)
)
