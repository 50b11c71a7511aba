package ssefanout

import (
	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/admin"
)

func init() {
	caddy.RegisterModule(adminAPI{})
}

// adminAPI is a module that lets an administrator see and end what is shared,
// through Caddy's admin API:
//
//	GET    /sse_fanout/topics                           all topics
//	GET    /sse_fanout/topics/<id>                      one, and its subscribers
//	DELETE /sse_fanout/topics/<id>                      end it: its clients come back to a new one
//	DELETE /sse_fanout/topics/<id>/subscribers/<number> end one subscriber
//	GET    /sse_fanout/connections                      all connections of sse_multiplex, and their streams
//	DELETE /sse_fanout/connections/<number>             end one: its client comes back with its positions
//
// The topics are those of the process: also those of earlier configurations, for
// as long as they have subscribers. Neither queries nor values of vary nor
// addresses of clients are told.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.sse_fanout",
		New: func() caddy.Module { return new(adminAPI) },
	}
}

// Routes returns the route of the API.
func (adminAPI) Routes() []caddy.AdminRoute {
	return admin.API{Topics: topicsOf, Connections: multiplexConns}.Routes()
}

// Interface guards
var _ caddy.AdminRouter = adminAPI{}
