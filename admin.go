package ssefanout

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/view"
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

// adminPath is where the API is.
const adminPath = "/sse_fanout/"

// Routes returns the route of the API.
func (a adminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: adminPath, Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// topicID is what the id of a topic looks like.
var topicID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// serve finds out what is asked for.
func (a adminAPI) serve(w http.ResponseWriter, r *http.Request) error {
	path := strings.Split(strings.TrimPrefix(r.URL.Path, adminPath), "/")
	if path[0] != "topics" {
		return apiError(http.StatusNotFound, "finding %s: there is only %stopics", r.URL.Path, adminPath)
	}
	if len(path) == 1 {
		return a.serveTopics(w, r)
	}
	if !topicID.MatchString(path[1]) {
		return apiError(http.StatusBadRequest, "reading the topic id %q: it must be 12 hex digits", path[1])
	}
	switch {
	case len(path) == 2:
		return a.serveTopic(w, r, path[1])
	case path[2] == "subscribers" && len(path) == 4:
		number, err := strconv.ParseUint(path[3], 10, 64)
		if err != nil {
			return apiError(http.StatusBadRequest, "reading the subscriber's number %q: it must be a number", path[3])
		}
		return a.serveSubscriber(w, r, path[1], number)
	}
	return apiError(http.StatusNotFound, "finding %s: a topic has %s%s/subscribers/<number>",
		r.URL.Path, adminPath, strings.Join(path[:2], "/"))
}

func (a adminAPI) serveTopics(w http.ResponseWriter, r *http.Request) error {
	if err := allow(w, r, http.MethodGet); err != nil {
		return err
	}
	views := []view.Topic{}
	for _, t := range topicsOf("") {
		views = append(views, view.Of(t))
	}
	return respond(w, views)
}

func (a adminAPI) serveTopic(w http.ResponseWriter, r *http.Request, id string) error {
	if err := allow(w, r, http.MethodGet, http.MethodDelete); err != nil {
		return err
	}
	topics := topicsOf(id)
	if len(topics) == 0 {
		return apiError(http.StatusNotFound, "finding topic %s: there is none of this id", id)
	}
	if r.Method == http.MethodDelete {
		for _, t := range topics {
			t.Conclude(relay.Ending{Reason: relay.EndDeleted})
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	t := topics[0]
	found := struct {
		view.Topic
		List []view.Subscriber `json:"subscriber_list"`
	}{view.Of(t), []view.Subscriber{}}
	for _, s := range t.SubscriberSnapshots() {
		found.List = append(found.List, view.OfSubscriber(s))
	}
	return respond(w, found)
}

func (a adminAPI) serveSubscriber(w http.ResponseWriter, r *http.Request, id string, number uint64) error {
	if err := allow(w, r, http.MethodDelete); err != nil {
		return err
	}
	for _, t := range topicsOf(id) {
		if s := t.Subscriber(number); s != nil {
			s.End()
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
	}
	return apiError(http.StatusNotFound, "finding subscriber %d of topic %s: there is none", number, id)
}

// allow checks the method.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) error {
	if slices.Contains(methods, r.Method) || r.Method == http.MethodHead && methods[0] == http.MethodGet {
		return nil
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	return apiError(http.StatusMethodNotAllowed, "serving %s %s: the method must be %s",
		r.Method, r.URL.Path, strings.Join(methods, " or "))
}

func respond(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusInternalServerError, Err: fmt.Errorf("encoding the response: %w", err)}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n')) // the header is out: there is no error to tell
	return nil
}

func apiError(status int, format string, args ...any) error {
	return caddy.APIError{HTTPStatus: status, Err: fmt.Errorf(format, args...)}
}

// Interface guards
var _ caddy.AdminRouter = adminAPI{}
