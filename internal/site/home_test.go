package site

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
	"github.com/sse-fanout/caddy-sse-fanout/internal/request"
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"github.com/sse-fanout/caddy-sse-fanout/internal/survey"
)

// placeOf returns a place in a configuration of its own.
func placeOf(handler string, around *survey.Surroundings) Place {
	return Place{Server: new(caddyhttp.Server), Handler: handler, Around: around}
}

// factsOf returns the facts of a request that the site has given a variable.
func factsOf(t *testing.T, value string) request.Facts {
	t.Helper()
	r := caddyhttp.PrepareRequest(httptest.NewRequest(http.MethodGet, "/events", nil), caddy.NewReplacer(), nil, new(caddyhttp.Server))
	caddyhttp.SetVar(r.Context(), "v", value)
	return request.NewFacts(r, new(settings.Settings), new(survey.Surroundings))
}

// settle makes a place a home.
func settle(t *testing.T, hs *Homes, place Place, facts request.Facts) Route {
	t.Helper()
	route, isNew, err := hs.Settle(place, facts, true)
	if !isNew || err != nil {
		t.Fatalf("settled anew: %t, error %v", isNew, err)
	}
	return route
}

func TestJudge(t *testing.T) {
	plain := &survey.Surroundings{Plain: true, Print: "a", Behind: "b"}
	mine, facts := placeOf("1", plain), factsOf(t, "a")
	var hs Homes
	if got := hs.Judge(mine, facts); got != (Judgement{}) {
		t.Errorf("before the stranger has been anywhere: %+v", got)
	}
	settle(t, &hs, mine, facts)

	other := mine
	other.Handler = "2"
	for name, tc := range map[string]struct {
		place Place
		facts request.Facts
		want  Judgement
	}{
		"the same":                             {mine, facts, Judgement{Known: true, Settled: true}},
		"another handler":                      {other, facts, Judgement{Why: pass.Front, Known: true, Settled: true}},
		"other facts":                          {mine, factsOf(t, "b"), Judgement{Why: pass.Differs, Differs: "variable v", Known: true, Settled: true}},
		"another configuration, the same":      {placeOf("3", plain), facts, Judgement{Known: true, Settled: true}},
		"another configuration, another front": {placeOf("4", &survey.Surroundings{Print: "c"}), facts, Judgement{Settled: true}},
	} {
		if got := hs.Judge(tc.place, tc.facts); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestSettle(t *testing.T) {
	plain := &survey.Surroundings{Plain: true, Print: "a", Behind: "b"}
	mine, facts := placeOf("1", plain), factsOf(t, "a")
	var hs Homes
	if _, _, err := hs.Settle(mine, facts, false); !errors.Is(err, ErrUnsettled) || !errors.Is(err, ErrMoved) {
		t.Errorf("what is fetched settles: error %v", err)
	}
	settle(t, &hs, mine, facts)
	for _, shared := range []bool{false, true} {
		if _, isNew, err := hs.Settle(mine, facts, shared); isNew || err != nil {
			t.Errorf("again: settled anew %t, error %v", isNew, err)
		}
	}
	other := mine
	other.Handler = "2"
	for name, tc := range map[string]struct {
		place Place
		facts request.Facts
	}{
		"another handler":            {other, facts},
		"other facts":                {mine, factsOf(t, "b")},
		"other facts after a reload": {placeOf("3", plain), factsOf(t, "b")},
		"another stream behind":      {placeOf("4", &survey.Surroundings{Plain: true, Print: "a", Behind: "c"}), facts},
	} {
		if _, _, err := hs.Settle(tc.place, tc.facts, true); !errors.Is(err, ErrMoved) || errors.Is(err, ErrUnsettled) {
			t.Errorf("%s: got error %v, want ErrMoved", name, err)
		}
	}
}

// A topic forgets the configurations that it was in longest ago, and goes on through the
// newest.
func TestHomesAreBounded(t *testing.T) {
	plain := &survey.Surroundings{Plain: true, Print: "a", Behind: "b"}
	facts := factsOf(t, "a")
	var hs Homes
	first := placeOf("0", plain)
	hs.Connected(settle(t, &hs, first, facts))
	if !hs.IsVia(first.Server) || hs.AreElsewhere(first.Server, true) || hs.LeaveBehind(first.Server) {
		t.Error("the only home is elsewhere")
	}
	var places []Place // keep the servers, to which homes point weakly
	for range maxHomes {
		next := placeOf("n", plain)
		if !hs.LeaveBehind(next.Server) || !hs.AreElsewhere(next.Server, false) {
			t.Error("a configuration is known before the stranger has been there")
		}
		settle(t, &hs, next, facts)
		places = append(places, next)
	}
	newest := places[maxHomes-1].Server
	if !hs.AreElsewhere(newest, true) || hs.AreElsewhere(newest, false) {
		t.Error("the connection through the first configuration is not seen")
	}
	if n := len(hs.all); n != maxHomes || !hs.LeaveBehind(first.Server) {
		t.Errorf("%d homes are remembered, want %d, without the first", n, maxHomes)
	}
}
