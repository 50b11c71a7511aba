package site

import (
	"net"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// A Door is where requests enter the site that a handler of the wrapping form stands in.
type Door interface {
	// Enter serves a request.
	Enter(w http.ResponseWriter, r *http.Request)

	// Surroundings tells what stands in front of the handler and behind it.
	Surroundings() *survey.Surroundings

	// IsActive reports whether the site is that of the active configuration.
	IsActive() bool
}

// serverDoor is the front door of a handler that Caddy has provisioned.
type serverDoor struct {
	server   *caddyhttp.Server
	handler  caddyhttp.MiddlewareHandler
	settings *settings.Settings
}

// NewDoor returns the door of the server that a handler with these settings stands in.
func NewDoor(server *caddyhttp.Server, handler caddyhttp.MiddlewareHandler, s *settings.Settings) Door {
	return serverDoor{server, handler, s}
}

// Enter implements Door.
func (d serverDoor) Enter(w http.ResponseWriter, r *http.Request) { d.server.ServeHTTP(w, r) }

// Surroundings implements Door.
func (d serverDoor) Surroundings() *survey.Surroundings {
	s := d.settings
	return survey.Around(d.server, d.handler, survey.Vary{Headers: s.VaryHeaders, Placeholders: s.VaryPlaceholders, Strip: s.Strip})
}

// IsActive implements Door.
func (d serverDoor) IsActive() bool {
	app, err := caddy.ActiveContext().AppIfConfigured("http")
	if err != nil {
		return false
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		if server == d.server {
			return true
		}
	}
	return false
}

// LocalAddr is the local address of a request that came over no connection: that
// of the server's first listener.
func LocalAddr(server *caddyhttp.Server) net.Addr {
	local := &net.TCPAddr{IP: net.IPv4zero}
	if server == nil || len(server.Listen) == 0 {
		return local
	}
	address, err := caddy.ParseNetworkAddress(server.Listen[0])
	if err != nil {
		return local
	}
	local.Port = int(address.StartPort)
	if ip := net.ParseIP(address.Host); ip != nil {
		local.IP = ip
	}
	return local
}
