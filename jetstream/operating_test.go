package jetstream

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sse-fanout/caddy-sse-fanout/internal/fleet"
)

// exported returns the names of the metrics of a fleet, and the values of their label role.
func exported(t *testing.T) (names, roles []string) {
	t.Helper()
	conn, err := nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f, err := New(conn, "node", []byte("a secret of the fleet"), Settings{Stream: "S", Lease: defaultLease}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(one{&membership{f, conn}})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		names = append(names, family.GetName())
		for _, m := range family.Metric {
			for _, label := range m.Label {
				if label.GetName() == "role" {
					roles = append(roles, label.GetValue())
				}
			}
		}
	}
	return names, roles
}

// one collects the metrics of one fleet.
type one struct{ *membership }

func (o one) Describe(ch chan<- *prometheus.Desc) { collector{}.Describe(ch) }
func (o one) Collect(ch chan<- prometheus.Metric) { o.collect(ch) }

// What docs/ has for an operator must fit what is exported. The package ssefanout tests the rest.
func TestOperatorsFilesFitWhatAFleetExports(t *testing.T) {
	names, roles := exported(t)
	pattern, selector := regexp.MustCompile(`caddy_sse_fanout_fleet_[a-z_]*[a-z]`), regexp.MustCompile(`\brole=~?\\?"([^"\\]+)`)
	if want := []string{string(fleet.Apart), string(fleet.Follower), string(fleet.Holder)}; !slices.Equal(roles, want) {
		t.Errorf("the roles %q are exported, want %q", roles, want)
	}
	for file, all := range map[string]bool{"alerts.yml": false, "operating.md": false, "grafana.json": true, "fleet.md": true} {
		text, err := os.ReadFile(filepath.Join("..", "docs", file))
		if err != nil {
			t.Fatal(err)
		}
		used := pattern.FindAllString(string(text), -1)
		for _, name := range used {
			if !slices.Contains(names, name) {
				t.Errorf("docs/%s has %s, which is not exported", file, name)
			}
		}
		for _, name := range names {
			if all && !slices.Contains(used, name) {
				t.Errorf("docs/%s is without %s", file, name)
			}
		}
		for _, m := range selector.FindAllStringSubmatch(string(text), -1) {
			if !slices.Contains(roles, m[1]) {
				t.Errorf("docs/%s selects the role %q, which no series has", file, m[1])
			}
		}
	}
}
