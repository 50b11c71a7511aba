package survey

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// describeTerms adds to the print which clients a server admits, and which proxies it
// trusts to speak for others.
func (s *surveyor) describeTerms() {
	s.describe(s.server.ClientIPHeaders)
	s.describe(s.server.TrustedProxiesStrict)
	s.describe(s.server.TrustedProxiesUnix)
	s.describe(s.server.StrictSNIHost)
	s.describeHidden(reflect.ValueOf(s.server), trustedProxiesField)
	s.describeHidden(reflect.ValueOf(s.server), listenerWrappersField)
	if !slices.ContainsFunc(s.server.TLSConnPolicies, func(p *caddytls.ConnectionPolicy) bool { return p.ClientAuthentication != nil }) {
		return // they choose certificates of the server's
	}
	for _, policy := range s.server.TLSConnPolicies {
		s.describe(policy)
		s.describeHidden(reflect.ValueOf(policy), matchersField)
		if auth := policy.ClientAuthentication; auth != nil {
			s.describeHidden(reflect.ValueOf(auth), authorityField)
			s.describeHidden(reflect.ValueOf(auth), verifiersField)
		}
	}
}

// What modules a server and its TLS policies have is not exported, and Caddy drops the
// JSON that they were made of.
const (
	trustedProxiesField   = "trustedProxies"   // of caddyhttp.Server
	listenerWrappersField = "listenerWrappers" // of caddyhttp.Server
	matchersField         = "matchers"         // of caddytls.ConnectionPolicy
	authorityField        = "ca"               // of caddytls.ClientAuthentication
	verifiersField        = "verifiers"        // of caddytls.ClientAuthentication
	sourcesField          = "sources"          // of reverseproxy.MultiUpstreams
)

// describeHidden adds a field that is not exported. Without it, nobody knows whether two
// values are the same: then this one is like no other.
func (s *surveyor) describeHidden(of reflect.Value, name string) {
	field := of.Elem().FieldByName(name)
	if !field.IsValid() {
		s.describe(fmt.Sprintf("%p", of.Interface()))
		return
	}
	describe := printer{w: &s.print}
	describe.value(field, 0)
}
