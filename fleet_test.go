package ssefanout

import (
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func TestAHandlerWithoutAFleetSaysWhatIsMissing(t *testing.T) {
	for name, tc := range map[string]struct{ config, want string }{
		"no app":            {`{"fleet": true, "source": {"handler": "static_response"}}`, "xcaddy build --with"},
		"the wrapping form": {`{"fleet": true}`, "the option name"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, err := caddy.ProvisionContext(&caddy.Config{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = ctx.LoadModuleByID("http.handlers.sse_fanout", []byte(tc.config))
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "joining the fleet") {
				t.Errorf("got error %v, want one about %q", err, tc.want)
			}
		})
	}
}
