package jetstream

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
)

func init() {
	caddy.RegisterModule(adminAPI{})
}

// adminAPI tells what the fleets of this node do:
//
//	GET /sse_fanout/fleet
//
// It answers with a list of fleets, each with its stream, the server that this node is
// connected to, and its topics: what this node is for each, and which node asks the origin.
type adminAPI struct{}

// CaddyModule returns the Caddy module information.
func (adminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.sse_fanout_fleet", New: func() caddy.Module { return new(adminAPI) }}
}

// Routes implements caddy.AdminRouter.
func (adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/sse_fanout/fleet", Handler: caddy.AdminHandlerFunc(serveAdmin)}}
}

func serveAdmin(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "only GET is possible here"}
	}
	all := []fleetStatus{}
	members.Range(func(_, value any) bool {
		if m, ok := value.(*membership); ok {
			all = append(all, m.status())
		}
		return true
	})
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(all)
}

// A fleetStatus is what this node knows of a fleet.
type fleetStatus struct {
	Stream  string        `json:"stream"`
	Node    string        `json:"node"`
	Server  string        `json:"server,omitempty"` // absent while there is no connection
	Version string        `json:"server_version,omitempty"`
	Topics  []topicStatus `json:"topics"`
}

// A topicStatus is what this node knows of a topic of a fleet.
type topicStatus struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	fleet.Part
}

func (m *membership) status() fleetStatus {
	f := m.fleet
	status := fleetStatus{Stream: f.store.name, Node: f.node, Topics: []topicStatus{}}
	if m.conn.IsConnected() {
		status.Server, status.Version = m.conn.ConnectedUrlRedacted(), m.conn.ConnectedServerVersion()
	}
	for _, s := range f.all() {
		status.Topics = append(status.Topics, s.status())
	}
	slices.SortFunc(status.Topics, func(a, b topicStatus) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Subject, b.Subject))
	})
	return status
}

func (s *source) status() topicStatus {
	return topicStatus{Name: s.topic.Name(), Subject: s.subject, Part: s.Part()}
}

// Part implements fleet.Member.
func (s *source) Part() fleet.Part {
	part := fleet.Part{Role: s.role(), Lag: s.feed.lag.Load()}
	if holder := s.holder.Load(); holder != nil {
		part.HolderName = *holder
	}
	if v := s.contest.look(); v.away && v.err != nil {
		part.Error = v.err.Error()
	}
	return part
}

// Interface guards
var (
	_ caddy.AdminRouter = adminAPI{}
	_ fleet.Member      = (*source)(nil)
)
