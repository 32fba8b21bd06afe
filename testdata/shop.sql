-- A small shop: the schema that the demo and the end-to-end tests use beside pgbench's tables.
-- It has what real schemas have and toy schemas lack: jsonb, numeric, arrays, an enum, a domain,
-- a partitioned table, a wide value that is stored out of line, and a table without a key.

CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'cancelled');
CREATE DOMAIN email_address AS text CHECK (VALUE LIKE '%_@_%');

CREATE TABLE customers (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email      email_address NOT NULL UNIQUE,
    name       text NOT NULL,
    tags       text[] NOT NULL DEFAULT '{}',
    profile    jsonb NOT NULL DEFAULT '{}',
    birthday   date,
    created_at timestamptz NOT NULL
);

CREATE TABLE products (
    sku        text PRIMARY KEY,
    title      text NOT NULL,
    price      numeric(10, 2) NOT NULL,
    weight_kg  real,
    size_cm    double precision[],
    attributes jsonb,
    photo      bytea,
    token      uuid NOT NULL
);

CREATE TABLE orders (
    id          bigint NOT NULL,
    ordered_at  timestamptz NOT NULL,
    customer_id bigint NOT NULL,
    status      order_status NOT NULL DEFAULT 'new',
    total       numeric(12, 2) NOT NULL DEFAULT 0,
    note        text,
    PRIMARY KEY (id, ordered_at)
) PARTITION BY RANGE (ordered_at);
CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE orders_2026 PARTITION OF orders FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE orders_other PARTITION OF orders DEFAULT;

CREATE TABLE order_items (
    order_id   bigint NOT NULL,
    line       smallint NOT NULL,
    sku        text NOT NULL,
    quantity   integer NOT NULL,
    unit_price numeric(10, 2) NOT NULL,
    discount   numeric,
    gift       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (order_id, line)
);

CREATE TABLE payments (
    id       uuid PRIMARY KEY,
    order_id bigint NOT NULL,
    amount   numeric(12, 2) NOT NULL,
    paid_at  timestamptz NOT NULL,
    provider jsonb,
    hold     interval
);

CREATE TABLE visits (
    visited_at timestamp NOT NULL,
    path       text NOT NULL,
    client     inet
);
ALTER TABLE visits REPLICA IDENTITY FULL;

CREATE SEQUENCE order_ids;

-- One order with its items and its payment; `n` makes it reproducible.
CREATE PROCEDURE shop_order(n bigint) LANGUAGE plpgsql AS $$
DECLARE
    order_id bigint := nextval('order_ids');
    placed   timestamptz := timestamptz '2025-06-01 08:00:00.123456+00' + n * interval '7 hours';
BEGIN
    INSERT INTO orders (id, ordered_at, customer_id, note)
    VALUES (order_id, placed, 1 + n % (SELECT count(*) FROM customers),
            CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'ring twice, "Grüße" №' || n END);
    INSERT INTO order_items (order_id, line, sku, quantity, unit_price, discount, gift)
    SELECT order_id, line, p.sku, 1 + (n + line) % 4, p.price,
           CASE WHEN (n + line) % 3 = 0 THEN 0.1 * line END, (n + line) % 7 = 0
    FROM generate_series(1, 1 + (n % 3)::int) AS line
    JOIN products p ON p.sku = 'sku-' || (1 + (n * line) % (SELECT count(*) FROM products));
    UPDATE orders SET total = (SELECT coalesce(sum(quantity * unit_price), 0)
                               FROM order_items i WHERE i.order_id = orders.id)
    WHERE id = order_id;
    IF n % 4 <> 0 THEN
        INSERT INTO payments
        SELECT md5('payment ' || order_id)::uuid, id, total, placed + interval '90 seconds',
               jsonb_build_object('method', CASE WHEN n % 2 = 0 THEN 'card' ELSE 'transfer' END,
                                  'tries', n % 3, 'fee', total * 0.0125),
               CASE WHEN n % 6 = 0 THEN make_interval(days => (n % 40)::int, secs => 0.25) END
        FROM orders WHERE id = order_id;
        UPDATE orders SET status = 'paid' WHERE id = order_id;
    END IF;
END $$;

-- A stretch of business, `rounds` transactions long, from number `first` on.
CREATE PROCEDURE shop_business(first bigint, rounds bigint) LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN first .. first + rounds - 1 LOOP
        CALL shop_order(n);
        UPDATE orders SET status = 'shipped' WHERE id = n - 3 AND status = 'paid';
        UPDATE customers SET profile = jsonb_set(profile, '{orders}', to_jsonb(n)),
                             tags = array_append(tags[1:2], 'seen-' || n)
        WHERE id = 1 + n % 17;
        INSERT INTO visits VALUES (timestamp '2026-01-01' + n * interval '1 second 1 microsecond',
                                   '/p/' || n % 10, ('10.0.0.' || n % 250)::inet);
        IF n % 5 = 0 THEN
            UPDATE products SET price = round(price * 1.01, 2) WHERE sku = 'sku-' || (1 + n % 9);
        END IF;
        IF n % 10 = 0 THEN
            DELETE FROM order_items WHERE order_id = n - 7;
            UPDATE orders SET status = 'cancelled', total = 0 WHERE id = n - 7;
            DELETE FROM visits WHERE path = '/p/3' AND visited_at < timestamp '2026-01-01'
                + n * interval '1 second';
        END IF;
        IF n % 25 = 0 THEN
            -- Into another partition: a delete and an insert under one root.
            UPDATE orders SET ordered_at = ordered_at + interval '1 year' WHERE id = n - 20;
            DELETE FROM payments WHERE order_id = n - 15;
        END IF;
        COMMIT;
    END LOOP;
END $$;

INSERT INTO customers (email, name, tags, profile, birthday, created_at)
SELECT 'person' || i || '@example.org', 'Person ' || i,
       CASE i % 4 WHEN 0 THEN '{}'::text[] WHEN 1 THEN ARRAY['vip', 'a,b', 'quote"d']
                  WHEN 2 THEN ARRAY['new', NULL] ELSE ARRAY['plain'] END,
       jsonb_build_object('city', 'Town ' || i % 7, 'score', i / 8.0, 'nested', jsonb_build_array(i, NULL, true)),
       CASE WHEN i % 6 <> 0 THEN date '1960-02-28' + i * 37 END,
       timestamptz '2024-12-31 23:59:59.999999+00' + i * interval '1 hour'
FROM generate_series(1, 200) AS i;

INSERT INTO products
SELECT 'sku-' || i, 'Product ' || i, (i * 3.37)::numeric(10, 2), i / 3.0,
       CASE WHEN i % 5 <> 0 THEN ARRAY[i, i / 7.0, 1e-3] END,
       CASE WHEN i % 4 <> 0 THEN jsonb_build_object('colour', 'c' || i, 'stock', i * 11) END,
       -- About 12 kB that does not compress: stored out of line, so an update leaves it unsent.
       (SELECT decode(string_agg(md5(i || '/' || part), ''), 'hex') FROM generate_series(1, 750) AS part),
       md5('product ' || i)::uuid
FROM generate_series(1, 40) AS i;

CALL shop_business(1, 60);
