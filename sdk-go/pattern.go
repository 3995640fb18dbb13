package synego

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// methods are those that a pattern may name.
var methods = []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

// maxPattern bounds a pattern, which is also a metric label; bytes.
const maxPattern = 256

// segment is one part of a pattern's path: a literal (no name), a parameter, or the rest.
type segment struct {
	literal string
	name    string
	rest    bool
}

// pattern is `METHOD /path` in its parts; the root is one empty literal.
type pattern struct {
	text     string
	method   string
	segments []segment
}

// parsePattern reads `METHOD /path` with `{name}` for one segment and `{name...}` for all that is left.
func parsePattern(text string) (pattern, error) {
	if len(text) > maxPattern {
		return pattern{}, fmt.Errorf("pattern of %d bytes, at most %d are allowed", len(text), maxPattern)
	}
	method, path, _ := strings.Cut(text, " ")
	if !slices.Contains(methods, method) {
		return pattern{}, fmt.Errorf("pattern %q: expected `METHOD /path` with a method of %s", text, strings.Join(methods, " "))
	}
	if !strings.HasPrefix(path, "/") {
		return pattern{}, fmt.Errorf("pattern %q: expected a path that begins with a slash after one blank", text)
	}
	parsed := pattern{text: text, method: method}
	parts := strings.Split(path[1:], "/")
	names := map[string]bool{}
	for i, part := range parts {
		segment, err := parseSegment(part)
		last := i == len(parts)-1
		switch {
		case err != nil:
			return pattern{}, fmt.Errorf("pattern %q: %w", text, err)
		case part == "" && !last:
			return pattern{}, fmt.Errorf("pattern %q: empty segment", text)
		case segment.rest && !last:
			return pattern{}, fmt.Errorf("pattern %q: %s must be last", text, part)
		case segment.name != "" && names[segment.name]:
			return pattern{}, fmt.Errorf("pattern %q: the name %q is used twice", text, segment.name)
		}
		names[segment.name] = true
		parsed.segments = append(parsed.segments, segment)
	}
	return parsed, nil
}

func parseSegment(part string) (segment, error) {
	if inner, ok := strings.CutPrefix(part, "{"); ok && strings.HasSuffix(inner, "}") {
		name, rest := strings.CutSuffix(strings.TrimSuffix(inner, "}"), "...")
		if !isIdentifier(name) {
			return segment{}, fmt.Errorf("%q: expected a name of letters, digits and underscores", part)
		}
		return segment{name: name, rest: rest}, nil
	}
	for _, char := range part {
		if !strings.ContainsRune("-._~!$&',;=:@", char) && !isLetter(char) && !isDigit(char) {
			return segment{}, fmt.Errorf("%q: %q has no place in a literal; a parameter fills its segment, as in `{id}`", part, char)
		}
	}
	return segment{literal: part}, nil
}

func isLetter(char rune) bool {
	return char == '_' || (char >= 'a' && char <= 'z') || (char >= 'A' && char <= 'Z')
}
func isDigit(char rune) bool { return char >= '0' && char <= '9' }

func isIdentifier(name string) bool {
	for i, char := range name {
		if !isLetter(char) && (i == 0 || !isDigit(char)) {
			return false
		}
	}
	return name != ""
}

// shape is the pattern without the names of its parameters: two patterns of one shape take the same requests.
func (p pattern) shape() string {
	var shape strings.Builder
	shape.WriteString(p.method)
	for _, segment := range p.segments {
		switch {
		case segment.rest:
			shape.WriteString("/{...}")
		case segment.name != "":
			shape.WriteString("/{}")
		default:
			shape.WriteString("/" + segment.literal)
		}
	}
	return shape.String()
}

// router finds the handler of a request. Segment by segment, a literal wins over a parameter and a parameter over a
// rest.
type router struct {
	roots  map[string]*node
	shapes map[string]string
}

// node is one place in the tree of a method's patterns.
type node struct {
	literals map[string]*node
	param    *node
	rest     *handler
	here     *handler
}

func newRouter() *router {
	return &router{roots: map[string]*node{}, shapes: map[string]string{}}
}

// add takes a handler up; it refuses a pattern that takes the same requests as an earlier one.
func (r *router) add(h *handler) error {
	shape := h.pattern.shape()
	if earlier, taken := r.shapes[shape]; taken {
		return fmt.Errorf("patterns %q and %q take the same requests", earlier, h.pattern.text)
	}
	r.shapes[shape] = h.pattern.text
	at := r.roots[h.pattern.method]
	if at == nil {
		at = &node{}
		r.roots[h.pattern.method] = at
	}
	for _, segment := range h.pattern.segments {
		switch {
		case segment.rest:
			at.rest = h
			return nil
		case segment.name != "":
			if at.param == nil {
				at.param = &node{}
			}
			at = at.param
		default:
			if at.literals == nil {
				at.literals = map[string]*node{}
			}
			next := at.literals[segment.literal]
			if next == nil {
				next = &node{}
				at.literals[segment.literal] = next
			}
			at = next
		}
	}
	at.here = h
	return nil
}

// find returns the handler of a request and the values of its parameters, in the pattern's order. Without one it
// returns the sorted methods that the path does take: none means that the path is unknown.
func (r *router) find(method, escapedPath string) (found *handler, values []string, allow []string) {
	parts := strings.Split(strings.TrimPrefix(escapedPath, "/"), "/")
	for i, part := range parts {
		if plain, err := url.PathUnescape(part); err == nil {
			parts[i] = plain
		}
	}
	for _, tree := range []string{method, map[string]string{"HEAD": "GET"}[method]} {
		if h, values := r.roots[tree].find(parts, nil); h != nil {
			return h, values, nil
		}
	}
	for tree, root := range r.roots {
		if h, _ := root.find(parts, nil); h != nil {
			allow = append(allow, tree)
			if tree == "GET" {
				allow = append(allow, "HEAD")
			}
		}
	}
	slices.Sort(allow)
	return nil, nil, slices.Compact(allow)
}

func (n *node) find(parts, values []string) (*handler, []string) {
	if n == nil {
		return nil, nil
	}
	if len(parts) == 0 {
		return n.here, values
	}
	if h, all := n.literals[parts[0]].find(parts[1:], values); h != nil {
		return h, all
	}
	if parts[0] != "" {
		if h, all := n.param.find(parts[1:], append(slices.Clip(values), parts[0])); h != nil {
			return h, all
		}
	}
	if left := strings.Join(parts, "/"); n.rest != nil && left != "" {
		return n.rest, append(slices.Clip(values), left)
	}
	return nil, nil
}
