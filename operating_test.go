package ssefanout

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/observe"
	"github.com/sse-fanout/caddy-sse-fanout/internal/pass"
)

// What docs/ has for an operator must fit what is exported.

var (
	metricNames = regexp.MustCompile(`caddy_sse_fanout_[a-z_]*[a-z]`)
	selectors   = regexp.MustCompile(`(caddy_sse_fanout_[a-z_]+)\{[^}]*\b(reason|outcome)=~?\\?"([^"\\]+)`)
)

// fleetMetrics are exported by the package jetstream, which has a test of its own.
const fleetMetrics = "caddy_sse_fanout_fleet_"

// exposition is what a scrape gets.
func exposition(t *testing.T) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := observe.Register(registry, process{}); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// family is the name of a metric without what a histogram's series add to it.
func family(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

func TestOperatorsFilesFitWhatIsExported(t *testing.T) {
	exported := gather(t)
	families := make(map[string]bool)
	for name := range exported {
		name, _, _ = strings.Cut(name, "{")
		families[name] = true
	}
	for _, file := range []string{"docs/alerts.yml", "docs/grafana.json", "docs/operating.md", "docs/sharing.md", "docs/direct.md", "README.md"} {
		text := readFile(t, file)
		used := make(map[string]bool)
		for _, name := range metricNames.FindAllString(text, -1) {
			if strings.HasPrefix(name, fleetMetrics) {
				continue
			}
			used[family(name)] = true
			if !families[family(name)] {
				t.Errorf("%s has %s, which is not exported", file, name)
			}
		}
		for _, m := range selectors.FindAllStringSubmatch(text, -1) {
			for value := range strings.SplitSeq(m[3], "|") {
				pattern := regexp.MustCompile(fmt.Sprintf(`^%s\{%s="%s"\}$`, m[1], m[2], value))
				if !slices.ContainsFunc(slices.Collect(maps.Keys(exported)), pattern.MatchString) {
					t.Errorf("%s selects %s by %s %q, which no series has", file, m[1], m[2], value)
				}
			}
		}
		if file != "docs/grafana.json" && file != "docs/operating.md" {
			continue
		}
		for name := range families {
			if !used[name] {
				t.Errorf("%s is without %s", file, name)
			}
		}
	}
	guide := readFile(t, "docs/operating.md")
	for _, reason := range slices.Concat(texts(observe.EndReasons), texts(observe.Rejections), texts(pass.Reasons)) {
		if !strings.Contains(guide, "`"+reason+"`") {
			t.Errorf("docs/operating.md does not explain the reason %s", reason)
		}
	}
}

func texts[R ~string](reasons []R) (texts []string) {
	for _, reason := range reasons {
		texts = append(texts, string(reason))
	}
	return texts
}

// dashboardQueries returns the queries of the dashboard, without its variables.
func dashboardQueries(t *testing.T) (queries []string) {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "docs/grafana.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*")
	taken := make(map[[2]int]string)
	for _, panel := range dashboard.Panels {
		for x := panel.GridPos.X; x < panel.GridPos.X+panel.GridPos.W; x++ {
			for y := panel.GridPos.Y; y < panel.GridPos.Y+panel.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("the panels %q and %q overlap", panel.Title, other)
				}
				taken[[2]int{x, y}] = panel.Title
			}
		}
		for _, target := range panel.Targets {
			queries = append(queries, variables.Replace(target.Expr))
		}
	}
	return queries
}

func TestPromtoolAcceptsWhatOperatorsGet(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("promtool is missing: install Debian's package prometheus")
		}
		t.Skip("promtool (Debian's package prometheus) is not installed")
	}
	check := func(t *testing.T, input string, args ...string) {
		t.Helper()
		cmd := exec.Command(promtool, args...)
		cmd.Stdin = strings.NewReader(input)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "error") {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	check(t, exposition(t), "check", "metrics")
	check(t, "", "check", "rules", "--lint=all", "--lint-fatal", "docs/alerts.yml")
	check(t, "", "test", "rules", "testdata/alerts_test.yml")

	// The queries of the dashboard, as rules.
	queries := dashboardQueries(t)
	if len(queries) < 20 {
		t.Errorf("the dashboard has the queries %q", queries)
	}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, query := range queries {
		fmt.Fprintf(&rules, "  - record: query:%d\n    expr: '%s'\n", i, query)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, "", "check", "rules", file)
}
