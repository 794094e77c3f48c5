package run

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/metric"

	"github.com/varvelog/varve/metadata/controller"
)

// metrics are those of the balance of hot bytes. Only the controller's say something: the others' gauges stand at 0.
type metrics struct {
	moves, bytes      metric.Int64Counter
	difference, slack metric.Int64Gauge
}

func newMetrics(m metric.Meter) (x metrics, err error) {
	moves, err1 := m.Int64Counter("varve_balance_hot_moves_total", metric.WithUnit("{replica}"),
		metric.WithDescription("Replicas that began to move for their hot bytes."))
	bytes, err2 := m.Int64Counter("varve_balance_hot_bytes_total", metric.WithUnit("By"),
		metric.WithDescription("Hot bytes of the partitions of which a replica began to move for them: what that copies at most."))
	difference, err3 := m.Int64Gauge("varve_balance_hot_difference_bytes", metric.WithUnit("By"),
		metric.WithDescription("Hot bytes that the fullest broker has more than the emptiest, when they were last asked."))
	slack, err4 := m.Int64Gauge("varve_balance_hot_slack_bytes", metric.WithUnit("By"),
		metric.WithDescription("The difference up to which no replica moves (varve.balance.hot.slack.*)."))
	return metrics{moves, bytes, difference, slack}, errors.Join(err1, err2, err3, err4)
}

func (x *metrics) planned(ctx context.Context, plan controller.HotPlan) {
	x.moves.Add(ctx, int64(len(plan.Moves)))
	x.bytes.Add(ctx, plan.Bytes)
	x.difference.Record(ctx, plan.Difference)
	x.slack.Record(ctx, plan.Slack)
}
