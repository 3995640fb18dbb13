package synego

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// inputPlan says how the input type of a handler is filled from a request; made once, when the handler is declared.
type inputPlan struct {
	fields []inputField // from path and query
	body   []inputField // from the members of a JSON object
	whole  bool         // the body is the input as a whole
}

type inputField struct {
	index []int
	name  string
	query bool
}

var (
	durationType        = reflect.TypeFor[time.Duration]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonUnmarshalerType = reflect.TypeFor[json.Unmarshaler]()
)

// planOf reads the tags of an input type; it returns every mistake in them.
func planOf(in reflect.Type, pattern pattern) (*inputPlan, []error) {
	plan := &inputPlan{}
	hasBody := !slices.Contains([]string{"GET", "HEAD", "DELETE", "OPTIONS"}, pattern.method)
	if in.Kind() != reflect.Struct || reflect.PointerTo(in).Implements(jsonUnmarshalerType) {
		plan.whole = true
		if !hasBody {
			return plan, []error{fmt.Errorf("input %s: %s has no body; expected a struct with path and query tags", in, pattern.method)}
		}
		return plan, nil
	}
	var problems []error
	for _, field := range reflect.VisibleFields(in) {
		if field.Anonymous && field.Type.Kind() == reflect.Pointer {
			problems = append(problems, fmt.Errorf("field %s: embed the struct itself, not a pointer", field.Name))
		}
		if field.Anonymous || !field.IsExported() {
			continue
		}
		path, isPath := field.Tag.Lookup("path")
		query, isQuery := field.Tag.Lookup("query")
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case isPath:
			if !slices.ContainsFunc(pattern.segments, func(s segment) bool { return s.name == path }) {
				problems = append(problems, fmt.Errorf("field %s: the pattern has no parameter `{%s}`", field.Name, path))
			}
			plan.fields = append(plan.fields, inputField{index: field.Index, name: path})
		case isQuery:
			plan.fields = append(plan.fields, inputField{index: field.Index, name: query, query: true})
		case name == "-":
		case !hasBody:
			problems = append(problems, fmt.Errorf("field %s: %s has no body; expected a path or query tag", field.Name, pattern.method))
		default:
			if name == "" {
				name = field.Name
			}
			plan.body = append(plan.body, inputField{index: field.Index, name: name})
		}
		if (isPath || isQuery) && !isScalar(field.Type, isQuery) {
			problems = append(problems, fmt.Errorf("field %s: %s cannot be read from text", field.Name, field.Type))
		}
	}
	return plan, problems
}

// isScalar says whether setText can fill the type; with wide also pointers and slices of such types.
func isScalar(t reflect.Type, wide bool) bool {
	if reflect.PointerTo(t).Implements(textUnmarshalerType) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	case reflect.Pointer, reflect.Slice:
		return wide && isScalar(t.Elem(), false)
	}
	return false
}

// read fills in, a pointer to the input; the error names every mistake.
func (p *inputPlan) read(r *http.Request, in any) error {
	target := reflect.ValueOf(in).Elem()
	var mistakes []string
	reasons := map[string]bool{}
	query := r.URL.Query()
	for _, field := range p.fields {
		values, where := []string{r.PathValue(field.name)}, "path"
		if field.query {
			values, where = query[field.name], "query"
		}
		if err := setTexts(target.FieldByIndex(field.index), values); err != nil {
			mistakes = append(mistakes, fmt.Sprintf("%s %s: %s", where, field.name, err))
			reasons["invalid_"+where] = true
		}
	}
	if p.whole || len(p.body) > 0 {
		if kind := mediaType(r.Header); kind != contentJSON && kind != "" && !strings.HasSuffix(kind, "+json") {
			return reasonError(ReasonInvalidBody, "content type %s: expected %s", kind, contentJSON)
		}
		text, err := readBody(r)
		if err != nil {
			return err
		}
		if wrong := p.readBody(text, target); len(wrong) > 0 {
			mistakes = append(mistakes, wrong...)
			reasons[ReasonInvalidBody] = true
		}
	}
	if len(mistakes) > 0 {
		text := strings.Join(mistakes, "; ")
		for _, reason := range []string{ReasonInvalidBody, "invalid_path", "invalid_query"} { // the first one that holds
			if reasons[reason] {
				return Errorf(InvalidArgument, "%s", text).WithReason(reason)
			}
		}
	}
	return validate(in)
}

// readBody fills the fields that a JSON body has, each alone, so that one mistake does not hide another.
func (p *inputPlan) readBody(text []byte, target reflect.Value) (mistakes []string) {
	if len(bytes.TrimSpace(text)) == 0 {
		return []string{"body: missing, expected JSON"}
	}
	if p.whole {
		if err := json.Unmarshal(text, target.Addr().Interface()); err != nil {
			return []string{describeJSON("body", err)}
		}
		return nil
	}
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &members); err != nil {
		return []string{describeJSON("body", err)}
	}
	for _, field := range p.body {
		if member, ok := members[field.name]; ok {
			if err := json.Unmarshal(member, target.FieldByIndex(field.index).Addr().Interface()); err != nil {
				mistakes = append(mistakes, describeJSON(field.name, err))
			}
		}
	}
	return mistakes
}

// describeJSON says what is wrong at a place of the body in the words of JSON, not of Go.
func describeJSON(at string, err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field != "" {
			at += "." + wrong.Field
		}
		return fmt.Sprintf("%s: expected %s, got %s", at, jsonWord(wrong.Type), wrong.Value)
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Sprintf("%s: not JSON at byte %d", at, syntax.Offset)
	}
	return at + ": " + err.Error()
}

func jsonWord(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("an integer of %d bits", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("an integer ≥ 0 of %d bits", t.Bits())
	case reflect.Slice, reflect.Array:
		return "a list"
	}
	return "an object"
}

// validate asks the input itself. The text of its error is meant for the caller.
func validate(in any) error {
	checked, ok := in.(interface{ Validate() error })
	if !ok {
		if checked, ok = reflect.ValueOf(in).Elem().Interface().(interface{ Validate() error }); !ok {
			return nil
		}
	}
	err := checked.Validate()
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	return reasonError(ReasonInvalidBody, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// setTexts fills a field from the values of a parameter; none leave it as it is.
func setTexts(field reflect.Value, values []string) error {
	if len(values) == 0 {
		return nil
	}
	if field.CanAddr() && field.Addr().Type().Implements(textUnmarshalerType) {
		return setText(field, values[0])
	}
	switch field.Kind() {
	case reflect.Pointer:
		field.Set(reflect.New(field.Type().Elem()))
		return setText(field.Elem(), values[0])
	case reflect.Slice:
		list := reflect.MakeSlice(field.Type(), len(values), len(values))
		for i, value := range values {
			if err := setText(list.Index(i), value); err != nil {
				return err
			}
		}
		field.Set(list)
		return nil
	}
	return setText(field, values[0])
}

func setText(field reflect.Value, text string) error {
	if reader, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := reader.UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%q is not valid", text)
		}
		return nil
	}
	if field.Type() == durationType {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("expected a duration such as 1500ms, got %q", text)
		}
		field.SetInt(int64(d))
		return nil
	}
	var err error
	switch field.Kind() {
	case reflect.String:
		field.SetString(text)
	case reflect.Bool:
		var value bool
		value, err = strconv.ParseBool(text)
		field.SetBool(value)
	case reflect.Float32, reflect.Float64:
		var value float64
		value, err = strconv.ParseFloat(text, field.Type().Bits())
		field.SetFloat(value)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var value int64
		value, err = strconv.ParseInt(text, 10, field.Type().Bits())
		field.SetInt(value)
	default: // planOf lets no other kind through
		var value uint64
		value, err = strconv.ParseUint(text, 10, field.Type().Bits())
		field.SetUint(value)
	}
	if err != nil {
		return fmt.Errorf("expected %s, got %q", jsonWord(field.Type()), text)
	}
	return nil
}
