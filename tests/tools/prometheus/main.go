// What Prometheus makes of a scrape, by its own parser and its own engine, and what its operator makes of a manifest.
//
//	scrapes parse --file BODY --content-type T     every sample, and each metric's type and unit
//	scrapes query --file REQUEST                   how many series each query finds, and each selector in it
//	scrapes manifest --file YAML --kind K          exits with 1 if the operator's types have no such field
//
// Each prints one JSON object. It exits with 1 and a message where Prometheus would report an error.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	operator "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
	"sigs.k8s.io/yaml"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "scrapes:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("parse, query or manifest?")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	file := flags.String("file", "", "what is to be read")
	contentType := flags.String("content-type", "", "of the scrape")
	kind := flags.String("kind", "", "of the manifest")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	input, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	var result any
	switch arguments[0] {
	case "parse":
		result, err = parse(input, *contentType)
	case "query":
		result, err = query(input)
	case "manifest":
		result, err = manifest(input, *kind)
	default:
		err = fmt.Errorf("what is %q?", arguments[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

type sample struct {
	labels labels.Labels
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

type scrape struct {
	Samples []sample          `json:"samples"`
	Types   map[string]string `json:"types"`
	Units   map[string]string `json:"units"`
}

func parse(body []byte, contentType string) (scrape, error) {
	found := scrape{Types: map[string]string{}, Units: map[string]string{}}
	text, err := textparse.New(body, contentType, nil, textparse.ParserOptions{})
	if err != nil {
		return found, err
	}
	seen := map[string]bool{}
	for {
		entry, err := text.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		switch entry {
		case textparse.EntryType:
			name, kind := text.Type()
			found.Types[string(name)] = string(kind)
		case textparse.EntryUnit:
			name, unit := text.Unit()
			found.Units[string(name)] = string(unit)
		case textparse.EntrySeries:
			_, _, value := text.Series()
			var of labels.Labels
			text.Labels(&of)
			if seen[of.String()] {
				return found, fmt.Errorf("twice: %s", of)
			}
			seen[of.String()] = true
			found.Samples = append(found.Samples, sample{of, of.Map(), value})
		}
	}
}

// What the scrapes of one target were, and what is asked at the time of the last one.
type request struct {
	Target  map[string]string `json:"target"`
	Scrapes []struct {
		At          int64  `json:"at"` // Unix time in seconds
		ContentType string `json:"contentType"`
		Body        string `json:"body"`
	} `json:"scrapes"`
	Queries []string `json:"queries"`
}

type answer struct {
	Series    int            `json:"series"`
	Selectors map[string]int `json:"selectors"`
}

func query(input []byte) (map[string]answer, error) {
	var request request
	if err := json.Unmarshal(input, &request); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "scrapes")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	db, err := tsdb.Open(folder, nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	ctx := context.Background()
	var last int64
	for _, one := range request.Scrapes {
		found, err := parse([]byte(one.Body), one.ContentType)
		if err != nil {
			return nil, err
		}
		up := sample{labels: labels.FromStrings("__name__", "up"), Value: 1}
		appender := db.Appender(ctx)
		for _, sample := range append(found.Samples, up) {
			builder := labels.NewBuilder(sample.labels)
			for name, value := range request.Target {
				builder.Set(name, value)
			}
			if _, err := appender.Append(0, builder.Labels(), one.At*1000, sample.Value); err != nil {
				return nil, err
			}
		}
		if err := appender.Commit(); err != nil {
			return nil, err
		}
		last = one.At
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1_000_000,
		Timeout:    time.Minute,
		Parser:     parser.NewParser(parser.Options{}),
	})
	series := func(text string) (int, error) {
		query, err := engine.NewInstantQuery(ctx, db, nil, text, time.Unix(last, 0))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", text, err)
		}
		defer query.Close()
		result := query.Exec(ctx)
		if result.Err != nil {
			return 0, fmt.Errorf("%s: %w", text, result.Err)
		}
		vector, err := result.Vector()
		return len(vector), err
	}
	answers := map[string]answer{}
	for _, text := range request.Queries {
		expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		found := answer{Selectors: map[string]int{}}
		if found.Series, err = series(text); err != nil {
			return nil, err
		}
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			if selector, is := node.(*parser.VectorSelector); is {
				now := *selector
				now.OriginalOffset, now.Offset = 0, 0
				found.Selectors[now.String()], err = series(now.String())
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		answers[text] = found
	}
	return answers, nil
}

func manifest(input []byte, kind string) (any, error) {
	kinds := map[string]any{"PodMonitor": &operator.PodMonitor{}, "PrometheusRule": &operator.PrometheusRule{}}
	object, known := kinds[kind]
	if !known {
		return nil, fmt.Errorf("what is a %q?", kind)
	}
	decoded, err := yaml.YAMLToJSONStrict(input)
	if err != nil {
		return nil, err
	}
	strict := json.NewDecoder(bytes.NewReader(decoded))
	strict.DisallowUnknownFields()
	return object, strict.Decode(object)
}
