package conns

import (
	"reflect"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A server calls its hooks for each request: one with many handlers has them once.
func TestServerIsWatchedOnce(t *testing.T) {
	server := new(caddyhttp.Server)
	for range 20 {
		Watch(server, func() {})
	}
	for hooks, want := range map[string]int{"connStateFuncs": 1, "connContextFuncs": 1, "onShutdownFuncs": 2} {
		if got := reflect.ValueOf(server).Elem().FieldByName(hooks).Len(); got != want {
			t.Errorf("the server has %d %s, want %d", got, hooks, want)
		}
	}
}
