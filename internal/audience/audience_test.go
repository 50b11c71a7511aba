package audience

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestAudienceOf(t *testing.T) {
	browser := []string{"Accept", "text/event-stream", "Cache-Control", "no-cache", "Pragma", "no-cache", "User-Agent", "Mozilla/5.0 (X11)"}
	without := func(name string) []string {
		i := slices.Index(browser, name)
		return slices.Delete(slices.Clone(browser), i, i+2)
	}
	with := func(name, value string) []string { return append(without(name), name, value) }
	for _, tc := range []struct {
		name   string
		header []string
		want   Kind
	}{
		{"EventSource", browser, Browsers},
		{"Firefox", with("User-Agent", firefoxAgent), Dispatchers},
		{"Safari", with("User-Agent", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15"), Dispatchers},
		{"Chrome on iOS", with("User-Agent", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/137.0 Mobile/15E148 Safari/604.1"), Dispatchers},
		{"Edge", with("User-Agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 Safari/537.36 Edg/137.0"), Browsers},
		{"fetch of Firefox", append(without("Cache-Control"), "User-Agent", firefoxAgent), Libraries},
		{"fetch of a browser", without("Cache-Control"), Libraries},
		{"no Pragma", without("Pragma"), Libraries},
		{"npm eventsource", with("User-Agent", "node"), Libraries},
		{"no agent", without("User-Agent"), Libraries},
		{"another agent", with("User-Agent", "curl/8 (like Mozilla/5.0)"), Libraries},
		{"accepts more", with("Accept", "text/event-stream, */*;q=0.1"), Libraries},
		{"accepts with a parameter", with("Accept", "text/event-stream;charset=utf-8"), Libraries},
		{"accepts twice", append(slices.Clone(browser), "Accept", "text/html"), Libraries},
		{"another cache", with("Cache-Control", "max-age=0"), Libraries},
		{"cache twice", append(slices.Clone(browser), "Cache-Control", "no-store"), Libraries},
		{"accepts less than other types", with("Accept", "text/html, text/event-stream;q=0.1"), Libraries},
		{"refuses an event stream", with("Accept", "*/*, text/event-stream;q=0"), Readers},
		{"accepts anything", with("Accept", "*/*"), Readers},
		{"says nothing", nil, Readers},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			for i := 0; i < len(tc.header); i += 2 {
				r.Header.Add(tc.header[i], tc.header[i+1])
			}
			for _, option := range []string{"", "auto"} {
				if got := Of(r, option); got != tc.want {
					t.Errorf("primer %q: got %d, want %d", option, got, tc.want)
				}
			}
			if got := Of(r, "on"); got != Browsers {
				t.Errorf("primer on: got %d, want %d", got, Browsers)
			}
			want := tc.want
			if want <= Dispatchers {
				want = Libraries
			}
			if got := Of(r, "off"); got != want {
				t.Errorf("primer off: got %d, want %d", got, want)
			}
		})
	}
}

const firefoxAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
