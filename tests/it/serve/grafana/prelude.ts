// What a dashboard's JSON is held against: the types that Grafana publishes. The test writes the JSON below this, each
// part with its type.
import type { Dashboard } from '@grafana/schema';
import type { Dataquery } from '@grafana/grafana-foundation-sdk/prometheus';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeseries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** T as it stands in JSON, which has the words of an enum in its place. */
type Json<T> = 0 extends 1 & T
  ? T
  : T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends (infer U)[]
        ? Json<U>[]
        : T extends object
          ? { [K in keyof T]: Json<T[K]> }
          : T;

type Query = Json<Omit<Dataquery, '_implementsDataqueryVariant'>>;
interface Options {
  heatmap: Json<heatmap.Options>;
  stat: Json<stat.Options>;
  table: Json<table.Options>;
  timeseries: Json<timeseries.Options>;
}
interface Custom {
  heatmap: Json<heatmap.FieldConfig>;
  stat: Record<string, never>;
  table: Json<Partial<table.FieldConfig>>;
  timeseries: Json<timeseries.FieldConfig>;
}
