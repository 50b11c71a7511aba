package survey

import (
	"reflect"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// What Caddy does not export is found by name.
func TestFieldsThatCaddyDoesNotExport(t *testing.T) {
	for field, of := range map[string]reflect.Type{
		trustedProxiesField:   reflect.TypeFor[caddyhttp.Server](),
		listenerWrappersField: reflect.TypeFor[caddyhttp.Server](),
		matchersField:         reflect.TypeFor[caddytls.ConnectionPolicy](),
		authorityField:        reflect.TypeFor[caddytls.ClientAuthentication](),
		verifiersField:        reflect.TypeFor[caddytls.ClientAuthentication](),
		sourcesField:          reflect.TypeFor[reverseproxy.MultiUpstreams](),
	} {
		if _, found := of.FieldByName(field); !found {
			t.Errorf("%s has no field %s: after any reload, clients are sent away", of, field)
		}
	}
}
