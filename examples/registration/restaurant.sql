-- The restaurant's own database. It knows nothing of steplog but the idempotency keys it was given.

create table if not exists categories (
    menu         text not null,
    name         text not null,
    display_name text not null,
    description  text not null,
    primary key (menu, name)
);

create table if not exists dishes (
    key          text primary key,
    menu         text not null,
    dish_id      text not null,
    name         text not null,
    price        text not null,
    type         text not null,
    description  text not null,
    display_name text not null,
    print_name   text not null,
    tags         text not null
);

create table if not exists listings (
    dish     text not null references dishes (key) on delete cascade,
    menu     text not null,
    category text not null,
    primary key (dish, menu, category)
);

-- Which rows of the file were imported under which key: a row that stands here twice was imported twice.
create table if not exists import_batches (
    id              integer primary key,
    idempotency_key text    not null,
    first_row       integer not null,
    last_row        integer not null
);

create table if not exists options (
    menu       text not null,
    option_set text not null,
    name       text not null,
    dish       text not null references dishes (key) on delete cascade,
    primary key (menu, option_set, dish)
);

create table if not exists item_tags (
    dish text not null references dishes (key) on delete cascade,
    tag  text not null,
    primary key (dish, tag)
);
