package ssefanout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
	"github.com/sse-fanout/caddy-sse-fanout/internal/view"
)

// administer makes a request to the admin API and returns what was answered, and
// the status of an error.
func administer(t *testing.T, method, path string) (*httptest.ResponseRecorder, int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	err := adminAPI{}.Routes()[0].Handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	if err == nil {
		return w, 0, ""
	}
	apiErr, ok := errors.AsType[caddy.APIError](err)
	if !ok {
		t.Fatalf("%s %s gave the error %v, want a caddy.APIError", method, path, err)
	}
	return w, apiErr.HTTPStatus, apiErr.Err.Error()
}

func get[V any](t *testing.T, path string) (v V) {
	t.Helper()
	w, status, message := administer(t, http.MethodGet, path)
	if status != 0 {
		t.Fatalf("GET %s gave status %d: %s", path, status, message)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("GET %s has the type %q", path, got)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("GET %s: %v in %s", path, err, w.Body)
	}
	return v
}

// topics returns what the API tells of all topics: of this test, as no other has
// left one.
func topics(t *testing.T) []view.Topic {
	t.Helper()
	synctest.Wait()
	return get[[]view.Topic](t, "/sse_fanout/topics")
}

type oneTopic struct {
	view.Topic
	List []view.Subscriber `json:"subscriber_list"`
}

func TestAdminShowsATopic(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{Vary: []string{"Authorization"}, Heartbeat: Heartbeat{Interval: -1}})
		if got := topics(t); got == nil || len(got) != 0 {
			t.Fatalf("there are the topics %v, want an empty list", got)
		}
		began := time.Now()
		s.get("/events?token=secret", "Authorization", "secret", "Cookie", "secret")
		all := topics(t)
		if len(all) != 1 || all[0].State != "opening" || all[0].Subscribers != 0 || all[0].Waiting != 1 || !all[0].Since.Equal(began) {
			t.Errorf("a topic that waits for its origin is %+v", all)
		}

		time.Sleep(time.Second)
		up := s.origin.next().accept().events(1, 4)
		s.get("/events?token=secret", "Authorization", "secret", "Last-Event-ID", "3")
		time.Sleep(5 * time.Second)
		all = topics(t)
		name := s.onlyTopic().Name()
		want := view.Topic{
			ID: name[len(name)-12:], Name: name, State: "connected", Since: began.Add(time.Second),
			Subscribers: 2, LastEventID: "4",
			Log:      view.Log{Events: 4, Bytes: len(numbered(1, 4)), OldestAge: 5},
			Received: 4, Delivered: 5, DeliveredBytes: uint64(len(numbered(1, 4)) + len(numbered(4, 4))),
			EventsPerSecond: 4. / 6, // since the topic began
		}
		if got := fmt.Sprintf("%+v", all[0]); got != fmt.Sprintf("%+v", want) {
			t.Errorf("the topic is\n%s, want\n%+v", got, want)
		}

		one := get[oneTopic](t, "/sse_fanout/topics/"+want.ID)
		if len(one.List) != 2 || one.Name != want.Name {
			t.Fatalf("the topic is %+v, want two subscribers", one)
		}
		for i, outcome := range []string{"fresh", "resumed"} {
			got := one.List[i]
			events := uint64([]int{4, 1}[i])
			if got.Outcome != outcome || got.Events != events || got.Bytes == 0 || got.Lag == nil || *got.Lag != 0 ||
				!got.Since.Equal(began.Add(time.Duration(i)*time.Second)) {
				t.Errorf("subscriber %d is %+v", i, got)
			}
		}

		w, _, _ := administer(t, http.MethodGet, "/sse_fanout/topics/"+want.ID)
		for _, secret := range []string{"secret", "192.0.2.1", "token"} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("%q is in %s", secret, w.Body)
			}
		}
		if w, status, _ := administer(t, http.MethodHead, "/sse_fanout/topics"); status != 0 || w.Code != http.StatusOK {
			t.Errorf("HEAD gives status %d", status)
		}

		// What has gone wrong.
		up.abort()
		all = topics(t)
		got := all[0].Upstream
		if all[0].State != "reconnecting" || got.Attempts != 1 || got.Next == nil || !got.Next.After(time.Now()) ||
			got.LastError != "reading the event stream: the connection to the origin broke" || got.Failed == nil || !got.Failed.Equal(time.Now()) {
			t.Errorf("a topic that has lost its connection is %+v", all[0])
		}
		s.origin.await().fail(502)
		if got := topics(t)[0].Upstream; got.Attempts != 2 || got.LastError != "connecting to the origin: refused" {
			t.Errorf("after a second failure, the upstream is %+v", got)
		}
		s.origin.await().accept()
		if got := topics(t)[0]; got.State != "connected" || got.Upstream.Attempts != 0 || got.Upstream.Next != nil || got.Upstream.LastError == "" {
			t.Errorf("connected again, the topic is %+v", got)
		}
	})
}

func TestAdminStates(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		expect := func(states ...string) {
			t.Helper()
			var got []string
			for _, v := range topics(t) {
				got = append(got, string(v.State))
			}
			if fmt.Sprint(got) != fmt.Sprint(states) {
				t.Errorf("the states are %v, want %v", got, states)
			}
		}
		c := s.get("/a")
		s.origin.next().accept().events(1, 1)
		expect("connected")
		c.leave()
		expect("lingering")
		c = s.get("/a")
		expect("connected")
		s.get("/b")
		s.origin.next().answer(404).end()
		expect("connected", "refused")
		time.Sleep(2 * relay.RefusalMemory)
		expect("connected")
		s.cleanup() // the handler is removed
		expect("ending")
		c.leave()
		expect()
		s.handler.lineage = joinLineage(s.lineageName, &s.handler.instance) // for the cleanup of the test
		s.resolve()
	})
}

func TestAdminShowsLagAndCatchup(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		// Without heartbeats, which would keep the slow one busy for ever.
		s := newSetup(t, Options{DispatchTimeout: caddy.Duration(time.Minute), Heartbeat: Heartbeat{Interval: -1}})
		up, _ := s.joinLive(10, 12)
		slow := s.get("/events")
		slow.mu.Lock()
		slow.slowness = 20 * time.Second
		slow.mu.Unlock()
		up.events(13, 13)
		for i := range 5 {
			up.events(14+i, 14+i)
		}
		s.get("/events", "Last-Event-ID", "7")
		one := get[oneTopic](t, "/sse_fanout/topics/"+view.TopicID(s.onlyTopic()))
		if len(one.List) != 3 {
			t.Fatalf("there are the subscribers %+v, want 3", one.List)
		}
		if lag := one.List[1].Lag; lag == nil || *lag != 6 {
			t.Errorf("the slow subscriber lags by %v, want 6", lag)
		}
		if got := one.List[2]; got.Lag != nil || got.Outcome != "pending" {
			t.Errorf("the subscriber of a catch-up is %+v", got)
		}
		time.Sleep(time.Hour)
	})
}

func TestAdminDeletesATopic(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		up, c := s.joinLive(1, 3)
		other := s.get("/other")
		s.origin.next().accept()
		other.expect(primer(""))
		clients := []*client{c}
		for range 10 {
			clients = append(clients, s.get("/events"))
		}
		id := func() string {
			for _, v := range topics(t) {
				if strings.HasPrefix(v.Name, "example.com/events") {
					return v.ID
				}
			}
			t.Fatal("there is no topic")
			return ""
		}()
		before := gather(t)
		w, status, message := administer(t, http.MethodDelete, "/sse_fanout/topics/"+id)
		if status != 0 || w.Code != http.StatusNoContent || w.Body.Len() != 0 {
			t.Fatalf("got status %d, %d: %s", w.Code, status, message)
		}
		retries := map[string]bool{}
		for _, c := range clients {
			if !c.ended() {
				t.Fatal("a client of the topic is still served")
			}
			blocks := strings.Split(strings.TrimSpace(c.read()), "\n\n")
			last := blocks[len(blocks)-1]
			if !strings.HasPrefix(last, "retry: ") {
				t.Errorf("a stream has ended with %q", last)
			}
			retries[last] = true
		}
		if len(retries) < 6 {
			t.Errorf("11 clients were told %d different times to come back after", len(retries))
		}
		change := map[string]float64{
			"subscribers": -11, "topics": -1, "upstream_connections": -1, "history_events": -3,
			"history_bytes": -float64(len(numbered(1, 3))),
			`subscribers_ended_total{reason="deleted"}`: 11,
		}
		if overGzip {
			change["compressors"] = -1
		}
		expectChange(t, before, change)
		if !up.closed() || other.ended() {
			t.Errorf("the upstream is closed: %v; a client of another topic has ended: %v", up.closed(), other.ended())
		}
		if last := s.lastUpstreamLog(); last.ContextMap()["reason"] != "deleted" {
			t.Errorf("the log says %v", last.ContextMap())
		}

		// Whoever comes back opens another, under the same id.
		again := s.get("/events", "Last-Event-ID", "3")
		s.origin.next().accept().events(4, 4)
		s.origin.next().expectResumedWith("id 3").accept().events(4, 4)
		again.expect(primer("3") + numbered(4, 4))
		if got := get[oneTopic](t, "/sse_fanout/topics/"+id); got.Received != 1 {
			t.Errorf("the new topic is %+v", got)
		}
	})
}

// Who waits for an origin that hangs is freed, and so is who is being drained.
func TestAdminDeletesWhatIsStuck(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		c := s.get("/events")
		hung := s.origin.next()
		administer(t, http.MethodDelete, "/sse_fanout/topics/"+topics(t)[0].ID)
		if !c.ended() || !hung.closed() || !strings.HasPrefix(c.read(), "retry: ") {
			t.Error("a client is still waiting")
		}

		s = newSetup(t, Options{StreamCloseDelay: caddy.Duration(time.Hour)})
		_, c = s.joinLive(1, 1)
		s.pool.drain()
		if c.ended() {
			t.Fatal("drained at once")
		}
		administer(t, http.MethodDelete, "/sse_fanout/topics/"+topics(t)[0].ID)
		if !c.ended() {
			t.Error("a client is still there after its topic was deleted while draining")
		}
	})
}

func TestAdminDeletesASubscriber(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		up, stays := s.joinLive(1, 3)
		quiet := s.get("/events")
		quiet.expect(primer("3"))
		one := get[oneTopic](t, "/sse_fanout/topics/"+view.TopicID(s.onlyTopic()))
		path := fmt.Sprintf("/sse_fanout/topics/%s/subscribers/%d", one.ID, one.List[1].Number)
		if w, status, message := administer(t, http.MethodDelete, path); status != 0 || w.Code != http.StatusNoContent {
			t.Fatalf("got status %d, %d: %s", w.Code, status, message)
		}
		if !quiet.ended() {
			t.Error("the subscriber is still served")
		}
		if _, status, _ := administer(t, http.MethodDelete, path); status != http.StatusNotFound {
			t.Errorf("deleting it again gives status %d, want 404", status)
		}
		up.events(4, 4)
		stays.expect(numbered(4, 4))
		s.expectEnded(relay.EndDeleted, 1)
	})
}

// A subscriber that is busy, or about to wait, ends too.
func TestAdminDeletesBusySubscribers(t *testing.T) {
	for i := range 100 {
		bothWriters(t, func(t *testing.T) {
			s := newSetup(t, Options{StreamTimeout: caddy.Duration(time.Duration(i%2) * time.Hour)})
			up, c := s.joinLive(1, 1)
			topic := s.onlyTopic()
			sub := topic.Subscriber(topic.SubscriberSnapshots()[0].Number)
			go sub.End()
			up.send(numbered(2, 2+i))
			if !c.ended() {
				t.Error("the subscriber is still served")
			}
		})
	}
}

func TestAdminBadRequests(t *testing.T) {
	bothWriters(t, func(t *testing.T) {
		s := newSetup(t, Options{})
		s.joinLive(1, 3)
		id := view.TopicID(s.onlyTopic())
		number := s.onlyTopic().SubscriberSnapshots()[0].Number
		for _, tt := range []struct {
			method, path string
			status       int
			allow, says  string
		}{
			{"GET", "/sse_fanout/", 404, "", "there are /sse_fanout/topics and /sse_fanout/connections"},
			{"GET", "/sse_fanout/nothing", 404, "", "there are /sse_fanout/topics and /sse_fanout/connections"},
			{"POST", "/sse_fanout/nothing", 404, "", "/sse_fanout/topics"},
			{"POST", "/sse_fanout/topics", 405, "GET", "the method must be GET"},
			{"DELETE", "/sse_fanout/topics", 405, "GET", "the method must be GET"},
			{"OPTIONS", "/sse_fanout/topics", 405, "GET", "the method must be GET"},
			{"GET", "/sse_fanout/topics/", 400, "", "12 hex digits"},
			{"GET", "/sse_fanout/topics/x", 400, "", `"x": it must be 12 hex digits`},
			{"GET", "/sse_fanout/topics/" + id + "0", 400, "", "12 hex digits"},
			{"DELETE", "/sse_fanout/topics/" + strings.Repeat("G", 12), 400, "", "12 hex digits"},
			{"DELETE", "/sse_fanout/topics/..%2f..%2fconfig", 400, "", "12 hex digits"},
			{"GET", "/sse_fanout/topics/" + strings.Repeat("x", 1<<16), 400, "", "12 hex digits"},
			{"GET", "/sse_fanout/topics/" + strings.Repeat("0", 12), 404, "", "there is none of this id"},
			{"DELETE", "/sse_fanout/topics/" + strings.Repeat("0", 12), 404, "", "there is none of this id"},
			{"PUT", "/sse_fanout/topics/" + id, 405, "GET, DELETE", "the method must be GET or DELETE"},
			{"GET", "/sse_fanout/topics/" + id + "/", 404, "", "a topic has"},
			{"GET", "/sse_fanout/topics/" + id + "/subscribers", 404, "", "/subscribers/<number>"},
			{"GET", "/sse_fanout/topics/" + id + "/elsewhere/1", 404, "", "/subscribers/<number>"},
			{"DELETE", "/sse_fanout/topics/" + id + "/subscribers/1/2", 404, "", "/subscribers/<number>"},
			{"DELETE", "/sse_fanout/topics/" + id + "/subscribers/", 400, "", `"": it must be a number`},
			{"DELETE", "/sse_fanout/topics/" + id + "/subscribers/x", 400, "", `"x": it must be a number`},
			{"DELETE", "/sse_fanout/topics/" + id + "/subscribers/-1", 400, "", "it must be a number"},
			{"DELETE", "/sse_fanout/topics/" + id + "/subscribers/99999999999999999999", 400, "", "it must be a number"},
			{"DELETE", fmt.Sprint("/sse_fanout/topics/", id, "/subscribers/", number+1), 404, "", "there is none"},
			{"DELETE", fmt.Sprint("/sse_fanout/topics/000000000000/subscribers/", number), 404, "", "there is none"},
			{"GET", fmt.Sprint("/sse_fanout/topics/", id, "/subscribers/", number), 405, "DELETE", "the method must be DELETE"},
		} {
			w, status, message := administer(t, tt.method, tt.path)
			if status != tt.status || w.Header().Get("Allow") != tt.allow || !strings.Contains(message, tt.says) {
				t.Errorf("%s %.80s gives status %d, Allow %q: %.200q; want status %d, Allow %q, and %q",
					tt.method, tt.path, status, w.Header().Get("Allow"), message, tt.status, tt.allow, tt.says)
			}
		}
		if n := s.onlyTopic().Subscribers(); n != 1 {
			t.Errorf("%d subscribers are left, want 1", n)
		}
	})
}

// The API as Caddy serves it.
func TestAdminThroughCaddy(t *testing.T) {
	origin := newLiveOrigin(t)
	admin := freePort(t)
	s := run(t, "sse_fanout "+origin.addr, fmt.Sprintf("admin localhost:%d", admin))
	c := open(t, s.client, s.url+"/events")
	origin.send(numbered(1, 1))
	c.expect(numbered(1, 1))
	call := func(method, path string) (int, http.Header, string) {
		t.Helper()
		r, err := http.NewRequest(method, fmt.Sprintf("http://localhost:%d%s", admin, path), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header, string(body)
	}
	status, _, body := call("GET", "/sse_fanout/topics")
	var all []view.Topic
	if err := json.Unmarshal([]byte(body), &all); err != nil || status != http.StatusOK || len(all) != 1 {
		t.Fatalf("got status %d, error %v, %s", status, err, body)
	}
	if all[0].Upstream.Address != origin.addr || all[0].Subscribers != 1 || all[0].LastEventID != "1" {
		t.Errorf("the topic is %+v", all[0])
	}
	status, header, body := call("POST", "/sse_fanout/topics")
	if status != http.StatusMethodNotAllowed || header.Get("Allow") != "GET" ||
		body != "{\"error\":\"serving POST /sse_fanout/topics: the method must be GET\"}\n" {
		t.Errorf("a wrong method gives status %d, Allow %q, %s", status, header.Get("Allow"), body)
	}
	if status, _, body := call("DELETE", "/sse_fanout/topics/"+all[0].ID); status != http.StatusNoContent {
		t.Errorf("deleting gives status %d, %s", status, body)
	}
	if last := c.next(); !strings.HasPrefix(last, "retry: ") {
		t.Errorf("the client got %q", last)
	}
	if status, _, body := call("GET", "/metrics"); status != http.StatusOK || !strings.Contains(body, `caddy_sse_fanout_subscribers_ended_total{reason="deleted"}`) {
		t.Errorf("the metrics of the admin API: status %d, %s", status, body)
	}
	open(t, s.client, s.url+"/events")
}
