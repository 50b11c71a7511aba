// Package admin answers the requests of an administrator about topics and their subscribers.
package admin

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

// path is where the API is.
const path = "/sse_fanout/"

// An API answers requests for topics.
type API struct {
	// Topics returns the topics of this process that have an id, or all for an empty one.
	Topics func(id string) []*relay.Topic
}

// Routes returns the route of the API.
func (a API) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: path, Handler: caddy.AdminHandlerFunc(a.serve)}}
}

// topicID is what the id of a topic looks like.
var topicID = regexp.MustCompile(`^[0-9a-f]{12}$`)

// serve finds out what is asked for.
func (a API) serve(w http.ResponseWriter, r *http.Request) error {
	asked := strings.Split(strings.TrimPrefix(r.URL.Path, path), "/")
	if asked[0] != "topics" {
		return apiError(http.StatusNotFound, "finding %s: there is only %stopics", r.URL.Path, path)
	}
	if len(asked) == 1 {
		return a.serveTopics(w, r)
	}
	if !topicID.MatchString(asked[1]) {
		return apiError(http.StatusBadRequest, "reading the topic id %q: it must be 12 hex digits", asked[1])
	}
	switch {
	case len(asked) == 2:
		return a.serveTopic(w, r, asked[1])
	case asked[2] == "subscribers" && len(asked) == 4:
		number, err := strconv.ParseUint(asked[3], 10, 64)
		if err != nil {
			return apiError(http.StatusBadRequest, "reading the subscriber's number %q: it must be a number", asked[3])
		}
		return a.serveSubscriber(w, r, asked[1], number)
	}
	return apiError(http.StatusNotFound, "finding %s: a topic has %s%s/subscribers/<number>",
		r.URL.Path, path, strings.Join(asked[:2], "/"))
}

func (a API) serveTopics(w http.ResponseWriter, r *http.Request) error {
	if err := allow(w, r, http.MethodGet); err != nil {
		return err
	}
	views := []view.Topic{}
	for _, t := range a.Topics("") {
		views = append(views, view.Of(t))
	}
	return respond(w, views)
}

func (a API) serveTopic(w http.ResponseWriter, r *http.Request, id string) error {
	if err := allow(w, r, http.MethodGet, http.MethodDelete); err != nil {
		return err
	}
	topics := a.Topics(id)
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

func (a API) serveSubscriber(w http.ResponseWriter, r *http.Request, id string, number uint64) error {
	if err := allow(w, r, http.MethodDelete); err != nil {
		return err
	}
	for _, t := range a.Topics(id) {
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
