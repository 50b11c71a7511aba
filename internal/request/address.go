package request

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// ClientIP returns the address of the client that the server's trusted_proxies
// setting makes out, without its port.
func ClientIP(r *http.Request) string {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return ip
}

// ipv6Site is the prefix that counts as one client in IPv6. It is the smallest
// that a network assigns to a site, whose hosts choose the rest at will
// (RFC 4291, section 2.5.4).
const ipv6Site = 64

// CountedAddress returns the form of a client's address under which limits and
// queues count it: an IPv4 address, also if it is mapped into IPv6, or the /64 of
// an IPv6 address, without its zone. All clients whose address is unknown count
// as one, which is "".
func CountedAddress(ip string) string {
	ip, _, _ = strings.Cut(ip, "%")
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	if addr = addr.Unmap(); addr.Is4() {
		return addr.String()
	}
	site, _ := addr.Prefix(ipv6Site) // it fails only for more bits than there are
	return site.String()
}
