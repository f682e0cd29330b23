"""Offices, class rooms, and rooms for sports, play and storage."""

from __future__ import annotations

from edgemtl.data.homes import hangings, props, storage
from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.clutter import floor_heap
from edgemtl.data.homes.place import Room
from edgemtl.data.homes.tables import chairs_around, table_clutter, work_place


def office(b: Builder, room: Room, number: int, day: float) -> None:
    """Desks with chairs, shelves, cabinets, papers, a board."""
    for _ in range(b.integer(1, 3)):
        work_place(b, room, number, day)
    for _ in range(b.integer(1, 3)):
        storage.shelves(b, room, "bookshelf" if b.chance(0.7) else "shelves", b.uniform(0.5, 0.95))
    if b.chance(0.35):
        hangings.whiteboard(b, room)
    if b.chance(0.5):
        top = storage.piece(b, room, "cabinet", b.uniform(0.4, 0.9), 0.5, b.uniform(0.65, 1.4), True)
        b.scatter(top, "small desk", 0, 3)
        props.on_top(b, top, "box", props.carton(b))
    if b.chance(0.3):
        b.against(room, "filing")
    if b.chance(0.3):
        b.against(room, "bookcase")
    if b.chance(0.3):
        b.somewhere(room, "armchair")
    hangings.papers_on_wall(b, room)


def class_room(b: Builder, room: Room, number: int, day: float) -> None:
    """Tables with chairs and a board: class rooms and meeting rooms."""
    hangings.whiteboard(b, room)
    for _ in range(b.integer(1, 4)):
        table = b.somewhere(room, "table" if b.chance(0.5) else "desk", gap=0.3, turned=False, fits=(2.4, 1.3))
        if table is not None:
            chairs_around(b, room, table, "chair" if b.chance(0.6) else "desk chair", b.integer(1, 8), 0.05)
            b.scatter(table, "small desk", 0, 4)
            table_clutter(b, table)
    storage.shelves(b, room, "shelves", 0.6)
    if b.chance(0.5):
        storage.piece(b, room, "cabinet", b.uniform(0.9, 2.0), 0.5, b.uniform(0.8, 1.9))
    if b.chance(0.3):
        work_place(b, room, number, day)
    hangings.papers_on_wall(b, room)


def gym(b: Builder, room: Room, number: int, day: float) -> None:
    """Sports, play and storage."""
    for _ in range(b.integer(1, 2)):
        b.somewhere(room, "gym" if b.chance(0.75) else "big", turned=False)
    for _ in range(b.integer(1, 3)):
        storage.shelves(b, room, "shelves", b.uniform(0.1, 0.5))
    if b.chance(0.5):
        b.against(room, "sofa", 0.5)
    for _ in range(b.integer(1, 4)):
        b.somewhere(room, "toy" if b.chance(0.5) else "box")
    for _ in range(b.integer(0, 2)):
        b.somewhere(room, "small chair" if b.chance(0.4) else "chair")
    if b.chance(0.4):
        b.against(room, "washer")
    if b.chance(0.3):
        b.against(room, "rack")
    floor_heap(b, room)
