package workload

import (
	"fmt"
	"strings"
)

// sqlite: a database in a container: transactions that sync, an index, reads that hit the page cache.
func init() {
	register(func() Workload {
		return Workload{
			Name: "sqlite", Group: "real",
			Doc:    "sqlite: 100 transactions of 1,000 rows, an index, and queries",
			Layers: empty, Changes: true, Needs: []string{"sqlite3"},
			Steps: []Step{{
				Name: "sqlite",
				Run: func(e *Env) (int, error) {
					transactions := e.Scale.Of(100)
					rows := 1_000
					var sql strings.Builder
					sql.WriteString("CREATE TABLE t (id INTEGER PRIMARY KEY, key TEXT, value TEXT);\n")
					for range transactions {
						fmt.Fprintf(&sql, "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d)"+
							" INSERT INTO t (key, value) SELECT 'key ' || (i * 7919 %% 100003), hex(zeroblob(60)) FROM n; COMMIT;\n", rows)
					}
					sql.WriteString("CREATE INDEX k ON t (key);\nSELECT count(*), count(DISTINCT key) FROM t WHERE key > 'key 2';\nSELECT count(*) FROM t;\n")
					out, err := command(e.Dir, nil, "sqlite3", "db", sql.String())
					if err != nil {
						return 0, err
					}
					lines := strings.Fields(out)
					if want := fmt.Sprint(transactions * rows); len(lines) == 0 || lines[len(lines)-1] != want {
						return 0, fmt.Errorf("the database has %q rows, not %s", out, want)
					}
					return transactions, nil
				},
			}},
		}
	})
}
