package synego_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	synego "github.com/lostabaddon/synegobase/sdk-go"
	"github.com/lostabaddon/synegobase/sdk-go/synegotest"
)

func TestOfferNamesTheUserAndThePrice(t *testing.T) {
	type Price struct{ Cents int }
	shop := synego.NewService("shop")
	synego.Handle(shop, "GET /offers/{id}", func(ctx context.Context, in struct {
		ID int64 `path:"id"`
	}) (string, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://users/users/%d", in.ID), nil)
		if err != nil {
			return "", err
		}
		response, err := shop.Client().HTTP().Do(request)
		if err != nil {
			return "", err
		}
		if err := synego.ErrorOf(response); err != nil {
			return "", err
		}
		defer response.Body.Close()
		var user struct{ Name string }
		if err := json.NewDecoder(response.Body).Decode(&user); err != nil {
			return "", err
		}
		price, err := synego.Call[Price](ctx, shop.Client(), "prices", "quote", "tea")
		return fmt.Sprintf("%s: %d", user.Name, price.Cents), err
	})

	mesh := synegotest.Start(t, shop,
		synegotest.With(usersService()),
		synegotest.Stub("prices", "quote", Price{Cents: 900}),
	)
	response, err := mesh.Client().HTTP().Get("http://shop/offers/1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var offer string
	if err := json.NewDecoder(response.Body).Decode(&offer); err != nil || offer != "Ada: 900" {
		t.Errorf("offer %q, error %v", offer, err)
	}
}

// TestCodeInTheReadmeIsCodeThatCompiles finds each of its Go blocks, line by line, in a test file.
func TestCodeInTheReadmeIsCodeThatCompiles(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var compiled strings.Builder
	for _, file := range []string{"example_test.go", "readme_test.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		compiled.WriteString(trimmed(string(text)))
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) == 0 {
		t.Fatal("the README has no Go code")
	}
	for _, block := range blocks {
		if !strings.Contains(compiled.String(), trimmed(block[1])) {
			t.Errorf("no test file has this code:\n%s", block[1])
		}
	}
}

// trimmed is a text without its indentation and empty lines.
func trimmed(text string) string {
	var lines strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines.WriteString(line + "\n")
		}
	}
	return lines.String()
}
