package ssefanout

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
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
	views := []topicView{}
	for _, t := range topicsOf("") {
		views = append(views, viewOf(t))
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
	view := struct {
		topicView
		List []subscriberView `json:"subscriber_list"`
	}{viewOf(t), []subscriberView{}}
	for _, s := range t.SubscriberSnapshots() {
		view.List = append(view.List, viewOfSubscriber(s))
	}
	return respond(w, view)
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

// topicsOf returns the topics of an id, or all for an empty one: those that
// newcomers would join before those that are ending, and by name. There are
// several of an id while one takes over from the other, and if handlers with
// different settings share the same thing.
func topicsOf(id string) []*relay.Topic {
	var current, ending []*relay.Topic
	for _, p := range alive.all() {
		joined, left := p.relay.Topics()
		current, ending = append(current, joined...), append(ending, left...)
	}
	for _, topics := range []*[]*relay.Topic{&current, &ending} {
		*topics = slices.DeleteFunc(*topics, func(t *relay.Topic) bool { return id != "" && id != topicIDOf(t) })
		slices.SortFunc(*topics, func(a, b *relay.Topic) int { return strings.Compare(a.Name(), b.Name()) })
	}
	return append(current, ending...)
}

// topicIDOf returns the end of a topic's name, which tells it from others at the same
// place.
func topicIDOf(t *relay.Topic) string {
	name := t.Name()
	return name[strings.LastIndexByte(name, ' ')+1:]
}

// A topicView is what an administrator sees of a topic. Times that have passed
// are in seconds.
type topicView struct {
	// ID is the end of Name.
	ID   string `json:"id"`
	Name string `json:"name"`

	// State is one of opening, connected, reconnecting, lingering (without
	// subscribers), refused (the origin has said no) and ending; Since is when
	// it, or the connection beneath it, began.
	State relay.State `json:"state"`
	Since time.Time   `json:"since"`

	// Subscribers are those that are served, and Waiting those that wait for
	// the origin's first answer.
	Subscribers int `json:"subscribers"`
	Waiting     int `json:"waiting"`

	LastEventID string       `json:"last_event_id"`
	Log         logView      `json:"log"`
	Upstream    upstreamView `json:"upstream"`

	// Received counts what was taken into the log, and Delivered what was
	// written to subscribers, one event to two of them being two.
	Received        uint64  `json:"received"`
	Delivered       uint64  `json:"delivered"`
	DeliveredBytes  uint64  `json:"delivered_bytes"`
	EventsPerSecond float64 `json:"events_per_second"`
}

type logView struct {
	Events    int     `json:"events"`
	Bytes     int     `json:"bytes"`
	OldestAge float64 `json:"oldest_age"`
}

type upstreamView struct {
	Address string `json:"address,omitempty"`

	// Attempts are those that have failed in a row, and Next is when the origin
	// is asked again.
	Attempts  int        `json:"attempts"`
	Next      *time.Time `json:"next,omitempty"`
	LastError string     `json:"last_error,omitempty"`
	Failed    *time.Time `json:"failed,omitempty"` // when that was
}

func viewOf(t *relay.Topic) topicView {
	seen := t.Snapshot()
	v := topicView{
		ID:              topicIDOf(t),
		Name:            t.Name(),
		State:           seen.State,
		Since:           seen.Since,
		Subscribers:     seen.Subscribers,
		Waiting:         seen.Waiting,
		LastEventID:     seen.Log.ID,
		Log:             logView{Events: seen.Log.Entries, Bytes: seen.Log.Bytes},
		Received:        seen.Log.Published,
		Delivered:       seen.Delivered,
		DeliveredBytes:  seen.DeliveredBytes,
		EventsPerSecond: seen.Log.Rate,
		Upstream: upstreamView{
			Address:   seen.Upstream.Address,
			Attempts:  seen.Upstream.Attempts,
			LastError: seen.Upstream.LastError,
		},
	}
	if seen.Log.Entries > 0 {
		v.Log.OldestAge = time.Since(seen.Log.Oldest).Seconds()
	}
	if next := seen.Upstream.Next; time.Now().Before(next) {
		v.Upstream.Next = &next
	}
	if failed := seen.Upstream.Failed; !failed.IsZero() {
		v.Upstream.Failed = &failed
	}
	return v
}

// A subscriberView is what an administrator sees of a subscriber.
type subscriberView struct {
	Number  uint64    `json:"number"`
	Since   time.Time `json:"since"`
	Outcome string    `json:"outcome"`

	// Direct says that its connection was handed over to direct delivery.
	Direct bool `json:"direct"`

	// Lag is how many events of the topic are yet to be delivered; absent while
	// the subscriber gets what it has missed from a catch-up.
	Lag    *uint64 `json:"lag,omitempty"`
	Events uint64  `json:"events"`
	Bytes  uint64  `json:"bytes"`
}

func viewOfSubscriber(s relay.SubscriberSnapshot) subscriberView {
	v := subscriberView{
		Number:  s.Number,
		Since:   s.Started,
		Outcome: s.Outcome.String(),
		Direct:  s.Carried,
		Events:  s.Events,
		Bytes:   s.Bytes,
	}
	if s.Known {
		v.Lag = &s.Lag
	}
	return v
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
